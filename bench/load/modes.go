package main

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// modes are what can be measured. A mode that has pods up tells the report, for
// the memory they take.
var modes = map[string]func(context.Context, *client, *result, *report) error{
	"serial": func(ctx context.Context, c *client, r *result, _ *report) error {
		return cycles(ctx, c, r, 1)
	},
	"parallel": func(ctx context.Context, c *client, r *result, _ *report) error {
		return cycles(ctx, c, r, c.workers)
	},
	"updown": upAndDown,
	"exec": func(ctx context.Context, c *client, r *result, _ *report) error {
		return execs(ctx, c, r, 1)
	},
	"parallel-exec": func(ctx context.Context, c *client, r *result, _ *report) error {
		return execs(ctx, c, r, c.workers)
	},
}

// each calls f with 0 … n-1, so many at a time, until one fails.
func each(ctx context.Context, n, workers int, f func(context.Context, int) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(workers)
	for i := range n {
		g.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			return f(ctx, i)
		})
	}
	return g.Wait()
}

// cycles runs whole lives of pods.
func cycles(ctx context.Context, c *client, r *result, workers int) error {
	began := time.Now()
	err := each(ctx, c.runs, workers, func(ctx context.Context, _ int) error {
		p, err := c.up(ctx, r)
		if err != nil {
			return err
		}
		return c.down(ctx, r, p)
	})
	r.rate("life cycles", c.runs, time.Since(began))
	return err
}

// upAndDown brings all pods up, then takes all down.
func upAndDown(ctx context.Context, c *client, r *result, rep *report) error {
	var mu sync.Mutex
	var pods []*pod
	began := time.Now()
	err := each(ctx, c.pods, c.workers, func(ctx context.Context, _ int) error {
		p, err := c.up(ctx, r)
		mu.Lock()
		defer mu.Unlock()
		pods = append(pods, p)
		return err
	})
	if err != nil {
		return err
	}
	r.rate("pods up", c.pods, time.Since(began))
	rep.remember(c.options, c.pods)
	began = time.Now()
	err = each(ctx, c.pods, c.workers, func(ctx context.Context, i int) error { return c.down(ctx, r, pods[i]) })
	r.rate("pods down", c.pods, time.Since(began))
	return err
}

// execs runs a program in one container again and again.
func execs(ctx context.Context, c *client, r *result, workers int) error {
	quiet := newResult("") // the pod around it is not what is measured
	p, err := c.up(ctx, quiet)
	if err != nil {
		return err
	}
	began := time.Now()
	err = each(ctx, 10*c.runs, workers, func(ctx context.Context, _ int) error { return c.exec(ctx, r, p) })
	if err != nil {
		return err
	}
	r.rate("execs", 10*c.runs, time.Since(began))
	return c.down(ctx, quiet, p)
}
