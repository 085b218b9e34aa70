package engine

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/runtime/plan"
)

// resctrl makes or checks a group of the resctrl file system and the container's monitoring group in it
// (runtime-spec, config-linux.md, IntelRdt). What is the container's own is written down first.
func (r *run) resctrl(op *plan.Op) error {
	group, monitor := op.Str[0], op.Str[1]
	if op.Num[0] == plan.ResctrlOwn {
		if err := r.intend(plan.ResctrlGroup, group, plan.InHost); err != nil {
			return err
		}
	}
	fresh, err := makeResctrl(group, op.Num[0])
	if err != nil {
		return err
	}
	switch {
	case fresh:
		for _, line := range op.List[0] {
			if err := writeSchema(group, line); err != nil {
				return err
			}
		}
	default:
		if err := checkSchemata(group, op.List[0]); err != nil {
			return err
		}
	}
	if monitor == "" {
		return nil
	}
	if err := r.intend(plan.ResctrlGroup, monitor, plan.InHost); err != nil {
		return err
	}
	if err := os.Mkdir(monitor, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return resctrlError(group, fmt.Errorf("make monitoring group: %w", err))
	}
	return nil
}

// makeResctrl makes the group's directory; fresh says that it was not there.
func makeResctrl(group string, makes uint64) (fresh bool, err error) {
	if makes == plan.ResctrlGiven {
		if _, err := os.Stat(group); err != nil {
			return false, fmt.Errorf("the group must be there, for no schemata are given: %w", err)
		}
		return false, nil
	}
	err = os.Mkdir(group, 0o755)
	switch {
	case errors.Is(err, fs.ErrExist):
		return false, nil
	case errors.Is(err, unix.ENOSPC):
		return false, fmt.Errorf("the processor has no more classes of service: %w", err)
	}
	return err == nil, err
}

func writeSchema(group, line string) error {
	f, err := os.OpenFile(filepath.Join(group, "schemata"), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteString(line + "\n"); err != nil {
		return resctrlError(group, fmt.Errorf("write %q: %w", line, err))
	}
	return nil
}

// resctrlError adds what the kernel says about the last refusal.
func resctrlError(group string, err error) error {
	for dir := group; len(dir) > 1; dir = filepath.Dir(dir) {
		if text, rerr := os.ReadFile(filepath.Join(dir, "info/last_cmd_status")); rerr == nil {
			return fmt.Errorf("%w (%s)", err, bytes.TrimSpace(text))
		}
	}
	return err
}

// checkSchemata wants a group that was there to have these schemata: other containers may be in it.
func checkSchemata(group string, lines []string) error {
	if len(lines) == 0 {
		return nil
	}
	text, err := os.ReadFile(filepath.Join(group, "schemata"))
	if err != nil {
		return err
	}
	have := map[string]string{}
	for s := bufio.NewScanner(bytes.NewReader(text)); s.Scan(); {
		readSchema(s.Text(), have)
	}
	want := map[string]string{}
	for _, line := range lines {
		readSchema(line, want)
	}
	for domain, value := range want {
		if have[domain] != value {
			return fmt.Errorf("the group is there with other schemata: %s is %q, want %q", domain, have[domain], value)
		}
	}
	return nil
}

// readSchema reads "L3:0=7f0;1=1f" into L3:0 and L3:1. The kernel pads what it prints with blanks and zeros.
func readSchema(line string, into map[string]string) {
	resource, domains, _ := strings.Cut(line, ":")
	for domain := range strings.SplitSeq(domains, ";") {
		id, value, _ := strings.Cut(domain, "=")
		into[strings.TrimSpace(resource)+":"+strings.TrimSpace(id)] = strings.ToLower(strings.TrimLeft(strings.TrimSpace(value), "0"))
	}
}

// removeResctrl removes a group of the container's own; one that has gone is no error.
func removeResctrl(dir string) error {
	if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove resctrl group %s: %w", dir, err)
	}
	return nil
}
