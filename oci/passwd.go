package oci

import (
	"bytes"
	"iter"
	"slices"
	"strconv"
	"strings"
)

// Bounds on what is read from an image's account files: an image is whoever's
// it is. A longer file is cut at a line, a longer line is skipped.
const (
	maxAccounts    = 1 << 20
	maxAccountLine = 64 << 10
)

// passwdEntry is a line of passwd(5), as far as a process needs it.
type passwdEntry struct {
	name     string
	uid, gid uint32
	home     string
}

// groupEntry is a line of group(5).
type groupEntry struct {
	name    string
	gid     uint32
	members []string
}

// accountLines yields the colon-separated fields of each line that has at
// least n of them. Comments, blank lines and NIS inclusions ("+::::::") are
// passed over, as are lines that are broken: one bad line of an image must not
// keep its other users from being found.
func accountLines(data []byte, n int) iter.Seq[[]string] {
	return func(yield func([]string) bool) {
		for line := range bytes.Lines(wholeLines(data, maxAccounts)) {
			line = bytes.TrimSpace(line)
			if len(line) == 0 || len(line) > maxAccountLine || line[0] == '#' || line[0] == '+' || line[0] == '-' {
				continue
			}
			f := strings.Split(string(line), ":")
			if len(f) >= n && f[0] != "" && !yield(f) {
				return
			}
		}
	}
}

func passwdEntries(data []byte) iter.Seq[passwdEntry] {
	return func(yield func(passwdEntry) bool) {
		for f := range accountLines(data, 4) {
			uid, ok1 := parseID(f[2])
			gid, ok2 := parseID(f[3])
			if !ok1 || !ok2 {
				continue
			}
			e := passwdEntry{name: f[0], uid: uid, gid: gid}
			if len(f) > 5 {
				e.home = f[5]
			}
			if !yield(e) {
				return
			}
		}
	}
}

func groupEntries(data []byte) iter.Seq[groupEntry] {
	return func(yield func(groupEntry) bool) {
		for f := range accountLines(data, 3) {
			gid, ok := parseID(f[2])
			if !ok {
				continue
			}
			e := groupEntry{name: f[0], gid: gid}
			if len(f) > 3 {
				e.members = strings.FieldsFunc(f[3], func(r rune) bool { return r == ',' || r == ' ' })
			}
			if !yield(e) {
				return
			}
		}
	}
}

// parseID reads a uid or gid. 2^32-1 is "no change" to setresuid(2) and never
// an id.
func parseID(s string) (uint32, bool) {
	if s == "" || s[0] == '+' {
		return 0, false
	}
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), err == nil && n != 1<<32-1
}

func findPasswd(data []byte, match func(passwdEntry) bool) (passwdEntry, bool) {
	for e := range passwdEntries(data) {
		if match(e) {
			return e, true
		}
	}
	return passwdEntry{}, false
}

func findGroup(data []byte, name string) (uint32, bool) {
	for e := range groupEntries(data) {
		if e.name == name {
			return e.gid, true
		}
	}
	return 0, false
}

// memberships returns the groups that list user, in the order of the file.
func memberships(data []byte, user string) []uint32 {
	var gids []uint32
	for e := range groupEntries(data) {
		if slices.Contains(e.members, user) {
			gids = append(gids, e.gid)
		}
	}
	return gids
}
