package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
	"github.com/google/go-cmp/cmp"
)

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestConfigRefused: config and serve say the same of a bad file: the field, its value, what is allowed.
func TestConfigRefused(t *testing.T) {
	long := "/run/" + strings.Repeat("a", 100)
	for _, tc := range []struct{ name, text, says string }{
		{"run_dir", `run_dir = "run"`, `run_dir: "run" is not an absolute path below /`},
		{"run_dir is the root", `run_dir = "/."`, `run_dir: "/." is not an absolute path below /`},
		{"run_dir too long", `run_dir = "` + long + `"`, `run_dir: "` + long + `" is longer than the 79 bytes`},
		{"state_dir", `state_dir = ""`, `state_dir: "" is not an absolute path below /`},
		{"one directory", "run_dir = \"/a/b\"\nstate_dir = \"/a/./b\"", `run_dir: "/a/b" and state_dir "/a/./b"`},
		{"run_dir in state_dir", "run_dir = \"/a/b\"\nstate_dir = \"/a\"", `run_dir: "/a/b" and state_dir "/a"`},
		{"state_dir in run_dir", "run_dir = \"/a\"\nstate_dir = \"/a/b\"", `run_dir: "/a" and state_dir "/a/b"`},
		{"socket", `socket = "cri.sock"`, `socket: "cri.sock" is not an absolute path below /`},
		{"socket too long", `socket = "` + long + `/x.sock"`, `is longer than the 107 bytes of a socket's path`},
		{"mode", "[network]\nmode = \"magic\"", `network.mode: "magic" is none of auto, builtin, cni`},
		{"pod_cidr", "[network]\npod_cidr = \"10.0.0.0\"", `network.pod_cidr: "10.0.0.0"`},
		{"bridge", "[network]\nbridge = \"a bridge\"", `network.bridge: "a bridge" is no interface name: 1 to 15`},
		{"mtu", "[network]\nmtu = 1000", `network.mtu: 1000 is neither 0 nor between 1280`},
		{"conf_dir", "[network]\nconf_dir = \"net.d\"", `network.conf_dir: "net.d" is not an absolute path`},
		{"bin_dirs", "[network]\nbin_dirs = [\"/opt\", \"bin\"]", `network.bin_dirs: "bin" is not an absolute path`},
		{"no bin_dirs", "[network]\nbin_dirs = []", `network.bin_dirs: [] names no directory`},
		{"config_dir", "[registry]\nconfig_dir = \"certs.d\"", `registry.config_dir: "certs.d" is not an absolute path`},
		{"stall_timeout", "[registry]\nstall_timeout = \"10ms\"", `registry.stall_timeout: 10ms is less than 1s`},
		{"duration without unit", "[registry]\nstall_timeout = 5", `registry.stall_timeout"): "5" is not a duration with its unit, such as "30s"`},
		{"duration as text without unit", "[streaming]\nidle_timeout = \"5\"", `streaming.idle_timeout"): "5" is not a duration with its unit`},
		{"pods_per_monitor", "[runtime]\npods_per_monitor = 0", `runtime.pods_per_monitor: 0 is not between 1 and 64`},
		{"wrong type", "[runtime]\npods_per_monitor = \"many\"", `runtime.pods_per_monitor`},
		{"cgroup_driver", "[runtime]\ncgroup_driver = \"fs\"", `runtime.cgroup_driver: "fs" is none of auto, cgroupfs, systemd`},
		{"init_path", "[runtime]\ninit_path = \"cri-mini-init\"", `runtime.init_path: "cri-mini-init" is not an absolute path`},
		{"handler", "[runtime]\nhandlers = [\"Fast One\"]", `runtime.handlers: "Fast One" is no name for a handler: 1 to 63 of a-z`},
		{"empty handler", "[runtime]\nhandlers = [\"\"]", `runtime.handlers: "" is no name`},
		{"handler twice", "[runtime]\nhandlers = [\"a\", \"b\", \"a\"]", `runtime.handlers: "a" is there twice`},
		{"address", "[streaming]\naddress = \"0.0.0.0:0\"", `streaming.address: "0.0.0.0:0" is not a loopback address`},
		{"idle_timeout", "[streaming]\nidle_timeout = \"0s\"", `streaming.idle_timeout: 0s is less than 1s`},
		{"level", "[log]\nlevel = \"loud\"", `log.level: "loud" is none of debug, info, warn, error`},
		{"format", "[log]\nformat = \"xml\"", `log.format: "xml" is none of text, json`},
		{"unknown key", "[log]\ncolour = \"info\"", `unknown key log.colour`},
		{"not TOML", "run_dir", "toml"},
		{"all at once", "[log]\nlevel = \"loud\"\n[network]\nmode = \"magic\"", `log.level: "loud" is none of debug, info, warn, error; network.mode: "magic"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := write(t, tc.text)
			for _, command := range []string{"config", "serve"} {
				err := run(t.Context(), []string{command, "--config", path})
				if err == nil || !strings.Contains(err.Error(), tc.says) || !strings.Contains(err.Error(), path) {
					t.Errorf("%s: %v; want %q and the file", command, err, tc.says)
				}
			}
		})
	}
}

// TestConfigIsComplete: what `config` prints is a file with every key that there is, and reads back as the same.
func TestConfigIsComplete(t *testing.T) {
	c, err := readConfig(write(t, ""))
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if err := toml.NewEncoder(&text).Encode(c); err != nil {
		t.Fatal(err)
	}
	again, err := readConfig(write(t, text.String()))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(c, again); diff != "" {
		t.Error(diff)
	}
	if printed, said := keys(t, text.String()), documented(t); !cmp.Equal(printed, said) {
		t.Errorf("docs/config.md is not what config prints:\n%s", cmp.Diff(said, printed))
	}
}

// documented gives the keys of the file in docs/config.md.
func documented(t *testing.T) map[string]bool {
	t.Helper()
	page, err := os.ReadFile("../../docs/config.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(page), "```toml\n")
	text, _, _ = strings.Cut(text, "```")
	if _, err := readConfig(write(t, text)); err != nil {
		t.Errorf("the file in docs/config.md: %v", err)
	}
	return keys(t, text)
}

func keys(t *testing.T, text string) map[string]bool {
	t.Helper()
	var v map[string]any
	md, err := toml.Decode(text, &v)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, k := range md.Keys() {
		found[k.String()] = true
	}
	return found
}

func TestArguments(t *testing.T) {
	for _, tc := range []struct {
		args []string
		says string // "" is success
	}{
		{[]string{"help"}, ""},
		{[]string{"--help"}, ""},
		{[]string{"-h"}, ""},
		{[]string{"version"}, ""},
		{[]string{"--version"}, ""},
		{nil, "no command given"},
		{[]string{"frob"}, `unknown command "frob"`},
		{[]string{"--frob"}, `unknown command "--frob"`},
		{[]string{"config", "x"}, `config: unexpected argument "x"`},
		{[]string{"serve", "x"}, `serve: unexpected argument "x"`},
		{[]string{"version", "x"}, `version: unexpected argument "x"`},
		{[]string{"help", "x"}, `help: unexpected argument "x"`},
		{[]string{"plan"}, "plan: give POD.json"},
		{[]string{"plan", "a", "b", "c"}, `plan: unexpected argument "c"`},
		{[]string{"image"}, "image: give one of these commands"},
		{[]string{"image", "help"}, ""},
		{[]string{"image", "frob"}, `image: no command "frob"`},
		{[]string{"image", "load"}, "image load: usage: cri-mini image load [--config FILE] [--json] [--name NAME] FILE"},
		{[]string{"image", "load", "a", "b"}, "image load: usage: "},
		{[]string{"image", "load", "--frob", "a"}, "flag provided but not defined: -frob"},
	} {
		err := run(t.Context(), tc.args)
		if (err == nil) != (tc.says == "") || err != nil && !strings.Contains(err.Error(), tc.says) {
			t.Errorf("cri-mini %q: %v, want %q", tc.args, err, tc.says)
		}
	}
}
