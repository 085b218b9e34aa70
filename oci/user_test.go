package oci

import (
	"bytes"
	"runtime"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestUser(t *testing.T) {
	const passwd = "root:x:0:0:root:/root:/bin/sh\n" +
		"# comment:x:7:7\n" +
		"broken\n" +
		"nan:x:a:b::/:/bin/sh\n" +
		"+nis::::::\n" +
		"short:x:12:13\n" +
		"1003:x:44:44:digits for a name:/home/digits:/bin/sh\n" +
		"www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin\n" +
		"default-user:x:1000:1000::/home/default-user:/bin/sh"
	const group = "root:x:0:\nwww-data:x:33:\nin-image:x:50000:other,default-user\nadm:x:4:default-user, www-data\ndup:x:1000:default-user\n"
	for _, tt := range []struct {
		name  string
		image string // User
		sc    *ctxt
		want  specs.User
		home  string
	}{
		{name: "nothing", want: specs.User{AdditionalGids: []uint32{0}}, home: "/root"},
		{name: "image uid", image: "1002", want: specs.User{UID: 1002, AdditionalGids: []uint32{0}}, home: "/"},
		{name: "image name", image: "www-data", want: specs.User{UID: 33, GID: 33, AdditionalGids: []uint32{33, 4}}, home: "/var/www"},
		{name: "image uid:gid, digits are no name", image: "1003:1004", want: specs.User{UID: 1003, GID: 1004, AdditionalGids: []uint32{1004}}, home: "/"},
		{name: "image name:gid", image: "www-data:1004", want: specs.User{UID: 33, GID: 1004, AdditionalGids: []uint32{1004, 4}}, home: "/var/www"},
		{name: "image uid:group", image: "7:in-image", want: specs.User{UID: 7, GID: 50000, AdditionalGids: []uint32{50000}}, home: "/"},
		{name: "image group only", image: ":33", want: specs.User{GID: 33, AdditionalGids: []uint32{33}}, home: "/root"},
		{name: "image without group", image: "33:", want: specs.User{UID: 33, GID: 33, AdditionalGids: []uint32{33, 4}}, home: "/var/www"},
		{name: "short line", image: "short", want: specs.User{UID: 12, GID: 13, AdditionalGids: []uint32{13}}, home: "/"},
		{name: "uid in passwd", sc: &ctxt{RunAsUser: one(1000)}, image: "33", want: specs.User{UID: 1000, GID: 1000, AdditionalGids: []uint32{1000, 50000, 4}}, home: "/home/default-user"},
		{name: "uid 0 over the image", sc: &ctxt{RunAsUser: one(0)}, image: "33", want: specs.User{AdditionalGids: []uint32{0}}, home: "/root"},
		{name: "uid and gid", sc: &ctxt{RunAsUser: one(5), RunAsGroup: one(6)}, want: specs.User{UID: 5, GID: 6, AdditionalGids: []uint32{6}}, home: "/"},
		{name: "name and gid", sc: &ctxt{RunAsUsername: "www-data", RunAsGroup: one(6)}, want: specs.User{UID: 33, GID: 6, AdditionalGids: []uint32{6, 4}}, home: "/var/www"},
		{
			name: "merge", sc: &ctxt{RunAsUser: one(1000), SupplementalGroups: []int64{1234, 4, 1234}},
			want: specs.User{UID: 1000, GID: 1000, AdditionalGids: []uint32{1000, 1234, 4, 50000}}, home: "/home/default-user",
		},
		{
			name: "strict", sc: &ctxt{RunAsUser: one(1000), SupplementalGroups: []int64{1234}, SupplementalGroupsPolicy: criapi.SupplementalGroupsPolicy_Strict},
			want: specs.User{UID: 1000, GID: 1000, AdditionalGids: []uint32{1000, 1234}}, home: "/home/default-user",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := input(t)
			in.Passwd, in.Group = []byte(passwd), []byte(group)
			in.Image.Config.User = tt.image
			in.Config.Linux.SecurityContext = tt.sc
			s, err := Container(in)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, s.Process.User); d != "" {
				t.Errorf("user (-want +got):\n%s", d)
			}
			if got := env(s, "HOME"); got != tt.home {
				t.Errorf("HOME=%s, want %s", got, tt.home)
			}
			status := User(s).GetLinux()
			if status.GetUid() != int64(tt.want.UID) || len(status.GetSupplementalGroups()) != len(tt.want.AdditionalGids) {
				t.Errorf("status: %v", status)
			}
		})
	}
}

// TestCVE202646680: the image's passwd gives root a name of digits. A number that has been looked at, and is not root's, stays
// what it is, and one that is no id is refused. See docs/oci.md for all tests of this kind.
func TestCVE202646680(t *testing.T) {
	for user, uid := range map[string]uint32{"1000": 1000, "1000:7": 1000, "4294967296": 0, "4294967295": 0, "99999999999999999999": 0, "1000:4294967296": 0} {
		in := input(t)
		in.Passwd = []byte("1000:x:0:0::/:/bin/sh\n4294967296:x:0:0::/:/bin/sh\n4294967295:x:0:0::/:/bin/sh\n99999999999999999999:x:0:0::/:/bin/sh\n")
		in.Group = []byte("7:x:0:\n4294967296:x:0:\n")
		in.Image.Config.User = user
		s, err := Container(in)
		switch {
		case uid == 0 && err == nil:
			t.Errorf("user %s became %+v", user, s.Process.User)
		case uid != 0 && (err != nil || s.Process.User.UID != uid || user == "1000:7" && s.Process.User.GID != 7):
			t.Errorf("user %s: %+v, %v", user, s, err)
		}
	}
}

// FuzzAccounts feeds the parser of passwd and group what an image could hold.
func FuzzAccounts(f *testing.F) {
	f.Add([]byte("root:x:0:0:root:/root:/bin/sh\n"), "root")
	f.Add([]byte("a:x:1:b,c\n::::\n\x00:\n#\n+\n-@x\na:b:4294967295:1\n"), "a")
	f.Fuzz(func(t *testing.T, data []byte, name string) {
		for e := range passwdEntries(data) {
			if e.name == "" || e.uid == 1<<32-1 || e.gid == 1<<32-1 {
				t.Errorf("entry %+v", e)
			}
		}
		for e := range groupEntries(data) {
			if e.name == "" || e.gid == 1<<32-1 {
				t.Errorf("entry %+v", e)
			}
		}
		if e, ok := findPasswd(data, func(e passwdEntry) bool { return e.name == name }); ok && e.name != name {
			t.Errorf("found %q for %q", e.name, name)
		}
		memberships(data, name)
		in := ContainerInput{Passwd: data, Group: data}
		b := &builder{in: in}
		if a, err := b.imageUser(name); err == nil && a.uid == 1<<32-1 {
			t.Errorf("user %+v", a)
		}
	})
}

func env(s *specs.Spec, key string) string {
	for _, kv := range s.Process.Env {
		if len(kv) > len(key) && kv[:len(key)+1] == key+"=" {
			return kv[len(key)+1:]
		}
	}
	return ""
}

// TestBoundedAccounts: an image's account files cost what a page of them costs, whatever is in them.
func TestBoundedAccounts(t *testing.T) {
	for name, data := range map[string][]byte{
		"one line":        bytes.Repeat([]byte("a"), 64<<20),
		"fields":          append([]byte("u:x:1:1:"), bytes.Repeat([]byte(":"), 64<<20)...),
		"lines":           bytes.Repeat([]byte("u:x:1:1::/:\n"), 6<<20),
		"members":         append([]byte("g:x:1:"), bytes.Repeat([]byte("u,"), 32<<20)...),
		"lines of fields": bytes.Repeat(append(bytes.Repeat([]byte(":"), maxAccountLine-1), '\n'), 1000),
	} {
		t.Run(name, func(t *testing.T) {
			in := input(t)
			in.Passwd, in.Group = data, data
			in.Image.Config.User = "nobody"
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			if _, err := Container(in); err == nil {
				t.Error("there is a nobody")
			}
			in.Image.Config.User = "7"
			if _, err := Container(in); err != nil {
				t.Error(err)
			}
			runtime.ReadMemStats(&after)
			if n := after.TotalAlloc - before.TotalAlloc; n > 256*maxAccounts {
				t.Errorf("%d MB were allocated for a file of %d MB", n>>20, len(data)>>20)
			}
		})
	}
}
