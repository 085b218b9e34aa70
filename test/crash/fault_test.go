package crash

import (
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// TestTidiedStateDirectory: what all containers share is made again when somebody has deleted it or a part of it, also
// between a create and its start.
func TestTidiedStateDirectory(t *testing.T) {
	n := private(t)
	if n == nil {
		return
	}
	n.start()
	p := n.runPod(n.podConfig("tidied"))
	for i, gone := range []string{"skeleton", "skeleton/etc/hosts", "skeleton/proc", "empty"} {
		name := string(rune('a' + i))
		c := p.create(containerConfig(name, "cat /etc/hosts /proc/self/cgroup; exit 3"))
		if err := os.RemoveAll(filepath.Join(n.state, gone)); err != nil {
			t.Fatal(err)
		}
		c.start()
		c.mustExit(3, "Error")
	}
	p.remove()
	n.mustBeEmpty()
}

// TestRollbackThatFails: a pod whose network can be neither attached nor detached stays listed until its removal
// succeeds, under this daemon or the next.
func TestRollbackThatFails(t *testing.T) {
	n := private(t)
	if n == nil {
		return
	}
	broken, dir := filepath.Join(n.disk, "broken"), filepath.Join(n.disk, "cni")
	n.network = fmt.Sprintf("mode = \"cni\"\nconf_dir = %q\nbin_dirs = [%[1]q]\n", dir)
	n.configure(16)
	write := func(path, text string, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	write(filepath.Join(dir, "1.conflist"), `{"cniVersion":"1.0.0","name":"net","plugins":[{"type":"fake"}]}`, 0o644)
	write(filepath.Join(dir, "fake"), `#!/bin/sh
[ "$CNI_COMMAND" = VERSION ] && echo '{"cniVersion":"1.0.0","supportedVersions":["1.0.0"]}' && exit 0
[ "$CNI_COMMAND" = DEL ] && [ ! -e `+broken+` ] && exit 0
echo '{"cniVersion":"1.0.0","code":7,"msg":"no luck with '$CNI_COMMAND'"}'; exit 1
`, 0o755)
	write(broken, "", 0o644)
	n.start()
	refuse := func(name string) string {
		t.Helper()
		_, err := n.rt.RunPodSandbox(t.Context(), &criapi.RunPodSandboxRequest{Config: n.podConfig(name)})
		if err == nil || !strings.Contains(err.Error(), "no luck with ADD") || !strings.Contains(err.Error(), "no luck with DEL") {
			t.Fatalf("RunPodSandbox: %v", err)
		}
		r, err := n.rt.ListPodSandbox(t.Context(), &criapi.ListPodSandboxRequest{Filter: &criapi.PodSandboxFilter{LabelSelector: map[string]string{"name": name}}})
		if err != nil || len(r.Items) != 1 || r.Items[0].State != criapi.PodSandboxState_SANDBOX_NOTREADY {
			t.Fatalf("after a rollback that has failed these pods are listed: %v, %v", r, err)
		}
		return r.Items[0].Id
	}
	first, second := refuse("stuck"), refuse("next")
	if _, err := n.rt.RemovePodSandbox(t.Context(), &criapi.RemovePodSandboxRequest{PodSandboxId: first}); err == nil || !strings.Contains(err.Error(), "no luck with DEL") {
		t.Errorf("RemovePodSandbox while nothing can be detached: %v", err)
	}
	n.mustList(2, 0)
	if err := os.Remove(broken); err != nil {
		t.Fatal(err)
	}
	(&pod{n: n, id: first}).remove()
	n.mustList(1, 0)
	n.restart() // begins with what was not finished
	n.mustList(0, 0)
	(&pod{n: n, id: second}).remove()
	n.mustBeEmpty()
}

// TestUnreadableNote: a journal whose lines are whole and whose note of the pod nobody understands, of a newer version
// perhaps, is put aside; what it names is released.
func TestUnreadableNote(t *testing.T) {
	n := private(t)
	if n == nil {
		return
	}
	n.start()
	good := n.runPod(n.podConfig("good"))
	c := good.run("a", "exec sleep 1000")
	c.exec(60, "until read -r name </proc/1/comm && [ $name = sleep ]; do :; done")
	for _, data := range []string{`"nonsense"`, `{"config":"//8=","state":"ready","created":1}`, `{"config":{}}`} {
		want := n.steady()
		bad := n.runPod(n.podConfig("bad"))
		bad.run("a", "while :; do sleep 0.05; done")
		n.kill()
		line := fmt.Sprintf(`{"do":"note","kind":"pod","name":%q,"data":%s}`, bad.id, data)
		f, err := os.OpenFile(filepath.Join(n.run, "pods", bad.id, "journal"), os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Fprintf(f, "%08x %s\n", crc32.Checksum([]byte(line), crc32.MakeTable(crc32.Castagnoli)), line); err != nil {
			t.Fatal(err)
		}
		f.Close()
		n.start()
		n.mustList(1, 1)
		c.mustRun()
		aside := filepath.Join(n.state, "quarantine", bad.id+".journal")
		if b, err := os.ReadFile(aside); err != nil || !strings.Contains(string(b), line) {
			t.Errorf("with %s, the journal that was put aside: %v", data, err)
		}
		if err := os.RemoveAll(filepath.Dir(aside)); err != nil {
			t.Fatal(err)
		}
		n.mustLookLike(want, settled)
	}
	good.remove()
	n.mustBeEmpty()
}
