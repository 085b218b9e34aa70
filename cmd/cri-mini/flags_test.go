package main

import (
	"errors"
	"flag"
	"io"
	"os"
	"strings"
	"testing"
)

// printed gives what a command line prints on standard output and standard error, and its error.
func printed(t *testing.T, args ...string) (string, error) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, stderr := os.Stdout, os.Stderr
	os.Stdout, os.Stderr = w, w
	failed := run(t.Context(), args)
	os.Stdout, os.Stderr = stdout, stderr
	_ = w.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b), failed
}

// TestBadCommandLines: the error says what is wrong, once; main prints it.
func TestBadCommandLines(t *testing.T) {
	for _, tc := range []struct{ name, line, words string }{
		{"typo in a flag of serve", "serve --confg x", "serve: flag provided but not defined: -confg"},
		{"typo in a flag of image load", "image load --confg x y", "image load: flag provided but not defined: -confg"},
		{"flag without its value", "config --config", "config: flag needs an argument: -config"},
		{"argument too many", "serve x", `serve: unexpected argument "x"`},
		{"configuration that is not there", "config --config /nonexistent", "read configuration /nonexistent: open /nonexistent: no such file or directory"},
		{"image command that is none", "image lod", `image: no command "lod": see cri-mini image help`},
		{"image load of nothing", "image load", "image load: usage: cri-mini image load [--config FILE] "},
		{"plan of nothing", "plan", "plan: give POD.json"},
		{"plan of a file that is not there", "plan nonexistent.json", "read nonexistent.json: open nonexistent.json: no such file or directory"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			out, err := printed(t, strings.Fields(tc.line)...)
			if err == nil || !strings.Contains(err.Error(), tc.words) || out != "" {
				t.Errorf("printed %q, error %v", out, err)
			}
		})
	}
}

func TestHelpOfCommands(t *testing.T) {
	for _, tc := range []struct{ name, line, words string }{
		{"serve", "serve --help", "usage: cri-mini serve [--config FILE]\n  --config FILE "},
		{"image save", "image save -h", "usage: cri-mini image save [--config FILE] [-o FILE] REF...\n  --config FILE "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			out, err := printed(t, strings.Fields(tc.line)...)
			if !errors.Is(err, flag.ErrHelp) || !strings.HasPrefix(out, tc.words) {
				t.Errorf("printed %q, error %v", out, err)
			}
		})
	}
}
