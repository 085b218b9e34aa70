package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestPlanReadsProfiles: the plan of a pod and of a container shows the filters of the files that they name.
func TestPlanReadsProfiles(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	profile := file("profile.json", `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_ERRNO"}]}`)
	config := file("config.toml", "run_dir = \""+dir+"/run\"\nstate_dir = \""+dir+"/state\"\n")
	seccomp := `"seccomp":{"profile_type":2,"localhost_ref":"` + profile + `"}`
	pod := file("pod.json", `{"metadata":{"name":"p"},"linux":{"security_context":{"namespace_options":{},`+seccomp+`}}}`)
	ctr := file("container.json", `{"metadata":{"name":"c"},"image":{"image":"x"},"linux":{"security_context":{`+seccomp+`}}}`)
	got, err := printed(t, "plan", "--config", config, pod, ctr)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(got, "profile=SCMP_ACT_ALLOW/1-rules"); n != 2 {
		t.Errorf("%d filters of the profile in\n%s", n, got)
	}
}
