package crash

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	hostPort = 18080

	// mainScript serves the pod's port and says when its handler is in place.
	mainScript = `mkdir -p /www; echo page > /www/index.html; httpd -p 80 -h /www; trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 1000 & wait $!; done`
	ttyScript  = `echo terminal; cat`
	onceScript = `echo once; exit 7`
)

// walk takes a pod from its beginning to its end, with every kind of container, and looks at each step whether the
// daemon says what it must. Each request is made until it is answered, by whatever daemon is there.
func (n *node) walk() {
	n.t.Helper()
	config := n.podConfig("walk", &criapi.PortMapping{ContainerPort: 80, HostPort: hostPort})
	// The log goes with the pod's directory, as kubelet has it.
	defer os.RemoveAll(config.LogDirectory)
	p := n.runPod(config)
	st := p.status()
	if st.State != criapi.PodSandboxState_SANDBOX_READY || st.Network.GetIp() == "" {
		n.t.Errorf("the pod is %s with address %q", st.State, st.Network.GetIp())
	}
	n.mustList(1, 0)

	main := p.create(containerConfig("main", mainScript))
	n.mustList(1, 1)
	main.start()
	withTTY := containerConfig("tty", ttyScript)
	withTTY.Tty, withTTY.Stdin = true, true
	tty := p.create(withTTY)
	tty.start()
	once := p.run("once", onceScript)
	n.mustList(1, 3)
	once.mustExit(7, "Error")
	main.says("ready")
	main.mustRun()
	tty.mustRun()
	if got := once.lines(); !slices.Contains(got, "once") {
		n.t.Errorf("once has said %q", got)
	}
	until(n.t, "the terminal's line is not in its log", func() bool {
		b, _ := os.ReadFile(tty.log)
		return strings.Contains(string(b), " stdout F terminal")
	})
	n.mustServe()
	main.update(&criapi.LinuxContainerResources{CpuShares: 300, MemoryLimitInBytes: 128 << 20})
	if r := main.exec(10, "echo out; echo err >&2; exit 5"); r.ExitCode != 5 || string(r.Stdout) != "out\n" || string(r.Stderr) != "err\n" {
		n.t.Errorf("exec gave %d %q %q", r.ExitCode, r.Stdout, r.Stderr)
	}

	main.stop(10)
	main.mustExit(3, "Error")
	if got := main.lines(); !slices.Contains(got, "bye") {
		n.t.Errorf("main has said %q", got)
	}
	once.remove()
	n.mustList(1, 2)
	p.stop()
	if st := p.status(); st.State != criapi.PodSandboxState_SANDBOX_NOTREADY || st.Network.GetIp() != "" {
		n.t.Errorf("after its stop the pod is %s with address %q", st.State, st.Network.GetIp())
	}
	tty.mustExit(137, "Error")
	p.stop()
	p.remove()
	n.mustList(0, 0)
	p.remove()
}

// mustServe asks the pod's web server by the host port.
func (n *node) mustServe() {
	n.t.Helper()
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d/index.html", hostPort))
	if err != nil {
		n.t.Errorf("host port: %v", err)
		return
	}
	defer r.Body.Close()
	if b, err := io.ReadAll(r.Body); err != nil || string(b) != "page\n" {
		n.t.Errorf("host port: %q, %v", b, err)
	}
}

// wipe makes the machine as it was before the first daemon, whatever a failed case has left.
func (n *node) wipe() {
	n.kill()
	n.crashNode()
	for _, dir := range []string{"tomb", "containers", "quarantine"} {
		os.RemoveAll(filepath.Join(n.state, dir))
	}
}
