package compile

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cri-mini/cri-mini/runtime/plan"
)

func TestParseOptions(t *testing.T) {
	for _, tc := range []struct {
		name string
		in   []string
		want options
	}{
		{"flags", []string{"ro", "nosuid", "nodev", "noexec", "nodiratime", "nosymfollow"},
			options{set: plan.AttrRdonly | plan.AttrNosuid | plan.AttrNodev | plan.AttrNoexec | plan.AttrNodiratime | plan.AttrNosymfollow}},
		{"the last one wins", []string{"ro", "rw", "suid", "nosuid"}, options{set: plan.AttrNosuid, clear: plan.AttrRdonly}},
		{"access times are one field", []string{"noatime", "strictatime"}, options{set: plan.AttrStrictatime, clear: plan.AttrAtimeMask}},
		{"relatime is its zero", []string{"noatime", "relatime"}, options{clear: plan.AttrAtimeMask}},
		{"recursive", []string{"rbind", "rro", "rnosuid", "rdev", "rnoatime"},
			options{bind: true, recursive: true, recSet: plan.AttrRdonly | plan.AttrNosuid | plan.AttrNoatime, recClear: plan.AttrNodev | plan.AttrAtimeMask}},
		{"recursive relatime", []string{"rrelatime"}, options{recClear: plan.AttrAtimeMask}},
		{"propagation in order", []string{"rslave", "shared"}, options{propagation: []uint64{plan.PropSlave | plan.PropRec, plan.PropShared}}},
		{"data", []string{"size=65536k", "newinstance", "mode=755", "x=a=b"}, options{data: []string{"size", "65536k", "newinstance", "", "mode", "755", "x", "a=b"}}},
		{"for mount(8)", []string{"defaults", "loud", "silent"}, options{}},
		{"idmap", []string{"bind", "ridmap"}, options{bind: true, idmap: true, idmapRec: true}},
		{"the last of two", []string{"bind", "ridmap", "idmap"}, options{bind: true, idmap: true}},
		{"remount", []string{"remount", "bind", "ro"}, options{remount: true, bind: true, set: plan.AttrRdonly}},
		{"for the file system", []string{"sync", "lazytime"}, options{data: []string{"sync", "", "lazytime", ""}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := parseOptions("mounts[0].options", tc.in)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tc.want, got, cmp.AllowUnexported(options{})); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
		})
	}
}
