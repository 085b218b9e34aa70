package oci

import (
	"strings"
	"unicode/utf8"
)

// setProcess sets what is run: arguments, environment, directory, terminal.
func (b *builder) setProcess() (err error) {
	p := b.spec.Process
	p.Terminal = b.in.Config.GetTty()
	if p.Args, err = b.args(); err != nil {
		return err
	}
	if p.Env, err = b.env(); err != nil {
		return err
	}
	p.Cwd, err = b.cwd()
	return err
}

// args follows the table of the Kubernetes documentation: command replaces the
// image's entrypoint and, with it, the image's arguments; args alone replace
// only those.
func (b *builder) args() ([]string, error) {
	command, args := b.in.Config.GetCommand(), b.in.Config.GetArgs()
	for i, a := range command {
		if strings.ContainsRune(a, 0) {
			return nil, badContainer(indexed("command", i), "contains a NUL byte")
		}
	}
	for i, a := range args {
		if strings.ContainsRune(a, 0) {
			return nil, badContainer(indexed("args", i), "contains a NUL byte")
		}
	}
	if len(command) == 0 {
		command = b.in.Image.Config.Entrypoint
		if len(args) == 0 {
			args = b.in.Image.Config.Cmd
		}
	}
	all := append(append([]string{}, command...), args...)
	switch {
	case len(all) == 0:
		return nil, badContainer("command", "is empty, and the image has no Entrypoint and no Cmd")
	case all[0] == "":
		return nil, badContainer("command", "names no program: its first element is the empty string")
	}
	return all, nil
}

// cwd is absolute, or the kernel would look for it from wherever init happens
// to be (CVE-2024-21626 began with a directory outside the root).
func (b *builder) cwd() (string, error) {
	dir, bad := b.in.Config.GetWorkingDir(), badContainer
	field := "working_dir"
	if dir == "" {
		dir, bad, field = b.in.Image.Config.WorkingDir, badImage, "WorkingDir"
	}
	switch {
	case dir == "":
		return "/", nil
	case dir[0] != '/':
		return "", bad(field, "%q is relative; give an absolute path", dir)
	case strings.ContainsRune(dir, 0), len(dir) > maxPath, !utf8.ValidString(dir):
		return "", bad(field, "is not a valid path")
	}
	return dir, nil
}
