package crash

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// A power cut: all processes are gone and so is all that lives in memory. The pods are still listed, not ready, their
// containers with the codes that were recorded or 255; removing them gives back the rest.
func TestReboot(t *testing.T) {
	n := private(t)
	if n == nil {
		return
	}
	n.start()
	p := n.runPod(n.podConfig("p"))
	ended := p.run("ended", "exit 3")
	ended.mustExit(3, "Error")
	running := p.run("running", "echo up; sleep 1000")
	running.says("up")
	until(t, "the pod's changes are not in the tomb", func() bool {
		b, err := os.ReadFile(filepath.Join(n.state, "tomb", p.id+".json"))
		return err == nil && len(b) > 0 && strings.Contains(string(b), `"exitCode":3`) && strings.Contains(string(b), `"running"`)
	})
	n.kill()
	n.crashNode()
	n.start()
	n.mustList(1, 2)
	if st := p.status(); st.State != criapi.PodSandboxState_SANDBOX_NOTREADY {
		t.Errorf("the pod is %s, want it not ready", st.State)
	}
	ended.mustExit(3, "Error")
	running.mustExit(255, "Unknown")
	if left, _ := os.ReadDir(filepath.Join(n.state, "containers")); len(left) > 0 {
		t.Errorf("%d writable layers are left", len(left))
	}
	p.stop()
	p.remove()
	n.mustList(0, 0)
	if left, _ := os.ReadDir(filepath.Join(n.state, "tomb")); len(left) > 0 {
		t.Errorf("%d pods are left in the tomb", len(left))
	}
	// The node works as before.
	q := n.runPod(n.podConfig("q"))
	q.run("c", "exit 9").mustExit(9, "Error")
	q.stop()
	q.remove()
	n.stop()
}
