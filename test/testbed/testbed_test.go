package testbed

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestLimit(t *testing.T) {
	t.Setenv(slowEnv, "")
	if got := Limit(time.Second); got != time.Second {
		t.Errorf("a limit of a second is %v", got)
	}
	t.Setenv(slowEnv, "10")
	if got := Limit(time.Second); got != 10*time.Second {
		t.Errorf("ten times slower, a limit of a second is %v", got)
	}
}

func TestLimitRefusesWords(t *testing.T) {
	for _, factor := range []string{"0", "-1", "1.5", "ten"} {
		t.Setenv(slowEnv, factor)
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%q was taken", factor)
				}
			}()
			Limit(time.Second)
		}()
	}
}

func TestProgramsThatWereBuilt(t *testing.T) {
	bin, dir := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "mini-runc"), []byte("built before"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv(binEnv, bin)
	if err := Programs(dir, "mini-runc"); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "mini-runc")); err != nil || string(b) != "built before" {
		t.Errorf("the program is %q, %v", b, err)
	}
}
