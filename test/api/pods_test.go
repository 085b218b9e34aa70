package api

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-mini/cri-mini/test/daemon"
)

// together makes a call five times at once and gives the different answers.
func together(t *testing.T, call func() (string, error)) map[string]bool {
	t.Helper()
	var mu sync.Mutex
	var all sync.WaitGroup
	ids := map[string]bool{}
	for range 5 {
		all.Go(func() {
			id, err := call()
			mu.Lock()
			defer mu.Unlock()
			if ids[id] = true; err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	return ids
}

func TestSameRequestSameResult(t *testing.T) {
	n := start(t)
	config := podConfig("same")
	run := func() (string, error) {
		r, err := n.Runtime.RunPodSandbox(n.ctx(), &criapi.RunPodSandboxRequest{Config: config})
		return r.GetPodSandboxId(), err
	}
	ids := together(t, run)
	p := &pod{n: n, config: config}
	for p.id = range ids {
	}
	if again, err := run(); len(ids) != 1 || again != p.id || err != nil {
		t.Errorf("five RunPodSandbox gave %v, one more %s, %v", ids, again, err)
	}
	create := func() (string, error) {
		c, err := p.tryCreate(containerConfig("same", "", idle))
		if err != nil {
			return "", err
		}
		return c.id, nil
	}
	ids = together(t, create)
	c := &container{n: n}
	for c.id = range ids {
	}
	if again, err := create(); len(ids) != 1 || again != c.id || err != nil {
		t.Errorf("five CreateContainer gave %v, one more %s, %v", ids, again, err)
	}
	n.mustList(1, 1)
	if ids := together(t, func() (string, error) { return "", c.start() }); len(ids) != 1 {
		t.Error(ids)
	}
	if err := c.start(); err != nil {
		t.Errorf("StartContainer of what runs: %v", err)
	}
	// Another attempt is another pod, as another attempt of a container is another one.
	config.Metadata.Attempt = 1
	if id, err := run(); id == p.id || err != nil {
		t.Errorf("another attempt of the pod gave %s, %v", id, err)
	}
	if other, err := p.tryCreate(containerConfig("same", "", idle, func(c *criapi.ContainerConfig) { c.Metadata.Attempt = 1 })); err != nil || other.id == c.id {
		t.Errorf("another attempt of the container gave %v, %v", other, err)
	}
	n.mustList(2, 2)
	stop := func() (string, error) {
		_, err := n.Runtime.StopPodSandbox(n.ctx(), &criapi.StopPodSandboxRequest{PodSandboxId: p.id})
		return "", err
	}
	together(t, stop)
	remove := func() (string, error) {
		_, err := n.Runtime.RemovePodSandbox(n.ctx(), &criapi.RemovePodSandboxRequest{PodSandboxId: p.id})
		return "", err
	}
	together(t, remove)
	n.mustList(1, 0)
}

// TestLikeRequestsAreNotOne: containers of one name that are asked for at the same time and differ are two.
func TestLikeRequestsAreNotOne(t *testing.T) {
	n := start(t)
	p := n.runPod("alike")
	for round := range 20 {
		var all sync.WaitGroup
		for i := range 8 {
			all.Go(func() {
				which := fmt.Sprint(i % 2)
				c, err := p.tryCreate(containerConfig(fmt.Sprint("c", round), "", idle, func(c *criapi.ContainerConfig) { c.Annotations = map[string]string{"which": which} }))
				if err != nil {
					t.Error(err)
				} else if got := c.status().Annotations["which"]; got != which {
					t.Errorf("who asked for %s got a container of %s", which, got)
				}
			})
		}
		all.Wait()
	}
	n.mustList(1, 40)
}

// TestEnvironmentIsBytes: a value that is no UTF-8 is the same after a restart, for what runs and for what starts then.
func TestEnvironmentIsBytes(t *testing.T) {
	n := start(t)
	p := n.runPod("bytes")
	const value = "\xff\xfe caf\xe9"
	env := func(c *criapi.ContainerConfig) { c.Envs = []*criapi.KeyValue{{Key: "X", Value: []byte(value)}} }
	runs, later := p.run("runs", "", idle, env), p.create("later", `echo "$X"; exec sleep 1000`, env)
	n.again()
	if got := runs.exec(`echo "$X"`); got != value {
		t.Errorf("an exec has %q", got)
	}
	if err := later.start(); err != nil {
		t.Fatal(err)
	}
	later.says(value)
}

// TestTrapSecondStopPodSandbox: a second stop is cheap, a stopped pod takes no container, a running pod can be removed.
func TestTrapSecondStopPodSandbox(t *testing.T) {
	n := start(t)
	p := n.runPod("stop")
	c := p.run("main", "", idle)
	if st := p.status(); st.State != criapi.PodSandboxState_SANDBOX_READY || net.ParseIP(st.Network.GetIp()) == nil || st.CreatedAt == 0 {
		t.Errorf("status: %v", st)
	}
	written := func() string { // every step of a stop is written down before it is made
		st, err := os.Stat(filepath.Join(n.Run, "pods", p.id, "journal"))
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(st.Size(), st.ModTime())
	}
	first := ""
	for i := range 3 {
		if _, err := n.Runtime.StopPodSandbox(n.ctx(), &criapi.StopPodSandboxRequest{PodSandboxId: p.id}); err != nil {
			t.Errorf("stop %d: %v", i, err)
		}
		if i == 0 {
			first = written()
		}
	}
	if last := written(); last != first {
		t.Errorf("the second and third stop do something: the journal was %s, and is %s", first, last)
	}
	if st := p.status(); st.State != criapi.PodSandboxState_SANDBOX_NOTREADY || st.Network.GetIp() != "" {
		t.Errorf("status after the stop: %v", st)
	}
	c.mustEnd(137, "Error")
	_, err := p.tryCreate(containerConfig("late", "true"))
	mustFail(t, err, codes.FailedPrecondition, p.id, "not ready")
	if _, err := c.tryExec(5, "true"); err == nil {
		t.Error("an exec in a container that ended succeeds")
	} else {
		mustFail(t, err, codes.FailedPrecondition, "exited")
	}
	// The same pod again is a new one: this one is over.
	again := n.runPod("stop")
	if again.id == p.id {
		t.Error("a pod that was stopped is given for a new one")
	}
	again.run("main", "", idle)
	if _, err := n.Runtime.RemovePodSandbox(n.ctx(), &criapi.RemovePodSandboxRequest{PodSandboxId: again.id}); err != nil {
		t.Errorf("RemovePodSandbox of what runs: %v", err)
	}
	n.mustList(1, 1)
}

func TestListsAndFilters(t *testing.T) {
	n := start(t)
	a, b := n.runPod("a"), n.runPod("b")
	ca := a.run("main", "", idle, func(c *criapi.ContainerConfig) { c.Labels = map[string]string{"of": "a"} })
	cb := b.create("main", "", idle)
	if _, err := n.Runtime.StopPodSandbox(n.ctx(), &criapi.StopPodSandboxRequest{PodSandboxId: b.id}); err != nil {
		t.Error(err)
	}
	for i, c := range []struct {
		filter *criapi.PodSandboxFilter
		want   []string
	}{
		{nil, []string{b.id, a.id}},
		{&criapi.PodSandboxFilter{Id: a.id}, []string{a.id}},
		{&criapi.PodSandboxFilter{Id: a.id[:10]}, []string{a.id}},
		{&criapi.PodSandboxFilter{Id: "nobody"}, nil},
		{&criapi.PodSandboxFilter{State: &criapi.PodSandboxStateValue{State: criapi.PodSandboxState_SANDBOX_NOTREADY}}, []string{b.id}},
		{&criapi.PodSandboxFilter{LabelSelector: map[string]string{"name": "a"}}, []string{a.id}},
		{&criapi.PodSandboxFilter{LabelSelector: map[string]string{"name": "a", "x": ""}}, nil},
	} {
		r, err := n.Runtime.ListPodSandbox(n.ctx(), &criapi.ListPodSandboxRequest{Filter: c.filter})
		var got []string
		for _, p := range r.GetItems() {
			got = append(got, p.Id)
		}
		if fmt.Sprint(got) != fmt.Sprint(c.want) || err != nil {
			t.Errorf("ListPodSandbox %d gives %v, want %v: %v", i, got, c.want, err)
		}
	}
	for i, c := range []struct {
		filter *criapi.ContainerFilter
		want   []string
	}{
		{nil, []string{cb.id, ca.id}},
		{&criapi.ContainerFilter{PodSandboxId: b.id}, []string{cb.id}},
		{&criapi.ContainerFilter{State: &criapi.ContainerStateValue{State: criapi.ContainerState_CONTAINER_RUNNING}}, []string{ca.id}},
		{&criapi.ContainerFilter{LabelSelector: map[string]string{"of": "a"}}, []string{ca.id}},
		{&criapi.ContainerFilter{Id: ca.id, PodSandboxId: b.id}, nil},
	} {
		r, err := n.Runtime.ListContainers(n.ctx(), &criapi.ListContainersRequest{Filter: c.filter})
		var got []string
		for _, c := range r.GetContainers() {
			got = append(got, c.Id)
		}
		if fmt.Sprint(got) != fmt.Sprint(c.want) || err != nil {
			t.Errorf("ListContainers %d gives %v, want %v: %v", i, got, c.want, err)
		}
	}
}

// TestCancelledRunPodSandbox: whenever its caller goes away, a retry gets the pod, and there is one.
func TestCancelledRunPodSandbox(t *testing.T) {
	n := start(t)
	for i, after := range []time.Duration{0, 200 * time.Microsecond, 500 * time.Microsecond, time.Millisecond, 2 * time.Millisecond, 4 * time.Millisecond} {
		config := podConfig(fmt.Sprintf("cancelled-%d", i))
		ctx, cancel := context.WithTimeout(t.Context(), after)
		_, err := n.Runtime.RunPodSandbox(ctx, &criapi.RunPodSandboxRequest{Config: config})
		cancel()
		t.Logf("after %s: %v", after, err)
		p := n.runPod(config.Metadata.Name)
		if again := n.runPod(config.Metadata.Name); again.id != p.id {
			t.Errorf("cancelled after %s: the retries got %s and %s", after, p.id, again.id)
		}
		p.run("main", "true").mustEnd(0, "Completed")
	}
	n.mustList(6, 6)
}

func TestHostPort(t *testing.T) {
	n := start(t)
	p := n.runPod("port", func(c *criapi.PodSandboxConfig) {
		c.PortMappings = []*criapi.PortMapping{{ContainerPort: 80, HostPort: 18091}}
	})
	p.run("main", "mkdir /www; echo page > /www/index.html; exec httpd -f -p 80 -h /www")
	get := func(address string) string {
		client := http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
		r, err := client.Get("http://" + address + "/")
		if err != nil {
			return err.Error()
		}
		defer r.Body.Close()
		b, _ := io.ReadAll(r.Body)
		return string(b)
	}
	for _, address := range []string{"127.0.0.1:18091", p.status().Network.Ip + ":80"} {
		got := ""
		until(t, address+" does not answer: "+got, func() bool { got = get(address); return got == "page\n" })
	}
	if _, err := n.Runtime.StopPodSandbox(n.ctx(), &criapi.StopPodSandboxRequest{PodSandboxId: p.id}); err != nil {
		t.Error(err)
	}
	if got := get("127.0.0.1:18091"); got == "page\n" {
		t.Error("the port of a stopped pod answers")
	}
}

func TestSharedPIDNamespace(t *testing.T) {
	n := start(t)
	p := n.runPod("shared", func(c *criapi.PodSandboxConfig) {
		c.Linux.SecurityContext.NamespaceOptions.Pid = criapi.NamespaceMode_POD
	})
	share := func(c *criapi.ContainerConfig) {
		c.Linux.SecurityContext.NamespaceOptions.Pid = criapi.NamespaceMode_POD
	}
	p.run("one", "", share, func(c *criapi.ContainerConfig) { c.Command = []string{"sleep", "1111"} })
	two := p.run("two", "", share, func(c *criapi.ContainerConfig) { c.Command = []string{"sleep", "2222"} })
	list := two.exec("ps")
	for _, want := range []string{"sleep 1111", "sleep 2222"} {
		if !strings.Contains(list, want) {
			t.Errorf("two does not see %q:\n%s", want, list)
		}
	}
	if first := two.exec("cat /proc/1/comm"); strings.Contains(first, "sleep") {
		t.Errorf("PID 1 is %s, want the pause process", first)
	}
	// An orphan is reaped by the pause process.
	two.exec("(sleep 0.1 & )")
	until(t, "an orphan stays a zombie", func() bool { return !strings.Contains(two.exec("ps -o stat"), "Z") })
	// One of them ends and the namespace stays.
	two.exec("kill -KILL $(pidof sleep | tr ' ' '\\n' | sort -n | head -1)")
	n.mustList(1, 2)
	// What a container leaves in the namespace of the pod ends with the container.
	three := p.run("three", "setsid sleep 3333 & sleep 0.1", share)
	three.mustEnd(0, "Completed")
	until(t, "a process of a container that ended lives on", func() bool { return !strings.Contains(strings.Join(n.Look(), "\n"), "sleep 3333") })
}

func TestUserNamespace(t *testing.T) {
	n := start(t)
	mapping := usernsOptions().Uids
	p := n.runPod("userns", usernsPod)
	volume := filepath.Join(n.Dir, "volume")
	if err := os.MkdirAll(volume, 0o755); err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(volume)
	c := p.run("main", "", idle, usernsContainer, mount(volume, "/volume", func(m *criapi.Mount) { m.UidMappings, m.GidMappings = mapping, mapping }))
	if got := c.exec("id -u; cat /proc/self/uid_map; stat -c %u:%g /bin/busybox; stat -c %u:%g /"); strings.Join(strings.Fields(got), " ") != "0 0 500000 65536 0:0 0:0" {
		t.Errorf("inside: %q", got)
	}
	c.exec("touch /file /volume/file; chown 1000:1000 /file; mount -t tmpfs none /tmp 2>/dev/null; true")
	for path, want := range map[string]uint32{filepath.Join(n.State, "containers", c.id, "upper", "file"): usernsBase + 1000, filepath.Join(volume, "file"): 0} {
		if got := owner(t, path); got != want {
			t.Errorf("%s belongs to %d, want %d", path, got, want)
		}
	}
	if st := p.status(); st.Linux.Namespaces.Options.UsernsOptions.GetMode() != criapi.NamespaceMode_POD || st.Network.GetIp() == "" {
		t.Errorf("status: %v", st)
	}
	if got := c.exec("cat /etc/hosts"); !strings.Contains(got, "userns") {
		t.Errorf("/etc/hosts: %q", got)
	}
}

// TestNetworkModeCNI: without a configuration the node is not ready, and says where it looks for one.
func TestNetworkModeCNI(t *testing.T) {
	d, err := daemon.New(start(t).Bin, "cni")
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(d.Dir, "net.d")
	d.Config = fmt.Sprintf("[network]\nmode = \"cni\"\nbridge = \"api-cni\"\nconf_dir = %q\n", dir)
	n := &node{d, t}
	// A daemon that ends without pods leaves its state directory and nothing else.
	before := n.Look()
	defer func() {
		if err := os.RemoveAll(d.State); err != nil {
			t.Error(err)
		}
		n.mustLookLike(before)
	}()
	if err := d.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := d.Stop(); err != nil {
			t.Error(err)
		}
	}()
	network := func() *criapi.RuntimeCondition {
		r, err := n.Runtime.Status(n.ctx(), &criapi.StatusRequest{})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range r.Status.Conditions {
			if c.Type == criapi.RuntimeReady && !c.Status {
				t.Errorf("RuntimeReady: %v", c)
			}
			if c.Type == criapi.NetworkReady {
				return c
			}
		}
		t.Fatal("no NetworkReady among the conditions")
		return nil
	}
	if c := network(); c.Status || !strings.Contains(c.Message, dir) || c.Reason == "" {
		t.Errorf("NetworkReady: %v", c)
	}
	_, err = n.Runtime.RunPodSandbox(n.ctx(), &criapi.RunPodSandboxRequest{Config: podConfig("cni")})
	mustFail(t, err, codes.FailedPrecondition, dir)
	n.mustList(0, 0)
	// A pod on the node's network needs none.
	p := n.runPod("host", func(c *criapi.PodSandboxConfig) {
		c.Linux.SecurityContext.NamespaceOptions.Network = criapi.NamespaceMode_NODE
	})
	if st := p.status(); st.State != criapi.PodSandboxState_SANDBOX_READY {
		t.Errorf("status: %v", st)
	}
	n.removeAll()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "10-lo.conflist"), []byte(`{"cniVersion":"1.0.0","name":"lo","plugins":[{"type":"loopback"}]}`), 0o644); err != nil {
		t.Fatal(err)
	}
	if c := network(); !c.Status {
		t.Errorf("with a conflist, NetworkReady: %v", c)
	}
}
