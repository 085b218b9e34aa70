package journal

import (
	"context"
	"errors"
	"fmt"

	"github.com/cri-mini/cri-mini/runtime/plan"
)

// Undo releases the live objects of an owner ("" for all), the last intended
// first, and crosses each out when it is gone. An object that does not go stays
// in the journal for the next try, and the others are released all the same; the
// errors come back joined. When ctx ends, the rest is left.
//
// release must succeed for an object that is gone or was never made.
func (j *Journal) Undo(ctx context.Context, owner string, release func(context.Context, plan.Object) error) error {
	objs := j.Live(owner)
	var errs []error
	for i := len(objs) - 1; i >= 0; i-- {
		obj := objs[i]
		if err := ctx.Err(); err != nil {
			return errors.Join(append(errs, fmt.Errorf("undo of %s left: %w", describe(objs[:i+1]), err))...)
		}
		err := release(ctx, obj)
		if err == nil {
			err = j.Release(obj)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("undo %s %s: %w", obj.Kind, obj.Name, err))
		}
	}
	return errors.Join(errs...)
}
