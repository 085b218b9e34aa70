package api

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// method is one RPC of CRI with the messages that it takes and gives.
type method struct {
	full   string
	desc   protoreflect.MethodDescriptor
	in     protoreflect.MessageType
	out    protoreflect.MessageType
	stream bool
}

// methods are all RPCs of both services.
func methods(t *testing.T) []method {
	t.Helper()
	var list []method
	for _, service := range []string{criapi.RuntimeService_ServiceDesc.ServiceName, criapi.ImageService_ServiceDesc.ServiceName} {
		d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(service))
		if err != nil {
			t.Fatal(err)
		}
		all := d.(protoreflect.ServiceDescriptor).Methods()
		for i := range all.Len() {
			md := all.Get(i)
			in, err := protoregistry.GlobalTypes.FindMessageByName(md.Input().FullName())
			if err != nil {
				t.Fatal(err)
			}
			out, err := protoregistry.GlobalTypes.FindMessageByName(md.Output().FullName())
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, method{"/" + service + "/" + string(md.Name()), md, in, out, md.IsStreamingServer()})
		}
	}
	return list
}

// unserved answer Unimplemented, and say so here.
var unserved = map[string]bool{"CheckpointContainer": true, "CheckpointPod": true, "RestorePod": true}

func TestUnservedRPCsAnswerUnimplemented(t *testing.T) {
	n := start(t)
	seen := map[string]bool{}
	for _, m := range methods(t) {
		name := string(m.desc.Name())
		seen[name] = true
		var err error
		if m.stream {
			err = n.firstOfStream(m)
		} else {
			err = n.Conn.Invoke(n.ctx(), m.full, m.in.New().Interface(), m.out.New().Interface())
		}
		switch s := status.Convert(err); {
		case unserved[name] && s.Code() != codes.Unimplemented:
			t.Errorf("%s answers %v, want Unimplemented: is it served now? then take it off the list", name, err)
		case unserved[name] && strings.Contains(s.Message(), "rpc error"):
			t.Errorf("%s: the code is said twice: %v", name, err)
		case !unserved[name] && s.Code() == codes.Unimplemented:
			t.Errorf("%s is served no more: %v", name, err)
		}
	}
	for name := range unserved {
		if !seen[name] {
			t.Errorf("%s is on the list and not in CRI", name)
		}
	}
}

// firstOfStream waits a moment only: events may never come.
func (n *node) firstOfStream(m method) error {
	ctx, cancel := context.WithTimeout(n.ctx(), 500*time.Millisecond)
	defer cancel()
	s, err := n.Conn.NewStream(ctx, &criapi.RuntimeService_ServiceDesc.Streams[0], m.full)
	if err != nil {
		return err
	}
	if err := s.SendMsg(m.in.New().Interface()); err != nil {
		return err
	}
	if err := s.CloseSend(); err != nil {
		return err
	}
	return s.RecvMsg(m.out.New().Interface())
}

// idempotent RPCs succeed for an id that is not there.
var idempotent = map[string]bool{"StopPodSandbox": true, "RemovePodSandbox": true, "StopContainer": true, "RemoveContainer": true}

// fill gives a request the fields beside its ids that it is refused without.
func fill(m protoreflect.Message) {
	switch r := m.Interface().(type) {
	case *criapi.ExecSyncRequest:
		r.Cmd, r.Timeout = []string{"true"}, 5
	case *criapi.ExecRequest:
		r.Cmd, r.Stdout = []string{"true"}, true
	case *criapi.AttachRequest:
		r.Stdout = true
	case *criapi.CreateContainerRequest:
		r.Config, r.SandboxConfig = containerConfig("ids", "true"), podConfig("ids")
	case *criapi.UpdateContainerResourcesRequest:
		r.Linux = &criapi.LinuxContainerResources{CpuShares: 100}
	}
}

// TestIDsThatAreNone: an id never becomes a path before it was found, so that no request with one that climbs reaches
// a file, and each RPC that takes an id answers as CRI says for an unknown one.
func TestIDsThatAreNone(t *testing.T) {
	n := start(t)
	p := n.runPod("ids")
	c := p.run("main", "", idle)
	canary := filepath.Join(n.Dir, "canary")
	if err := os.WriteFile(canary, []byte("here"), 0o600); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(canary)
	ids := map[string]string{
		"unknown": "0123456789abcdef", "climbs": "../../../../../../../.." + canary, "climbs within": p.id + "/../" + p.id, "absolute": canary, "a name below": c.id + "/upper",
		"empty": "", "dot": ".", "dots": "..", "newline": "a\nb", "nul": "a\x00b", "a glob": "*", "long": string(make([]byte, 100000)),
	}
	for _, m := range methods(t) {
		var fields []protoreflect.FieldDescriptor
		for _, name := range []protoreflect.Name{"pod_sandbox_id", "container_id"} {
			if f := m.desc.Input().Fields().ByName(name); f != nil {
				fields = append(fields, f)
			}
		}
		name := string(m.desc.Name())
		if len(fields) == 0 || unserved[name] || m.stream {
			continue
		}
		t.Run(name, func(t *testing.T) {
			n := &node{n.Daemon, t}
			n.unchanged(func() {
				for what, id := range ids {
					for _, f := range fields {
						in := m.in.New()
						in.Set(f, protoreflect.ValueOfString(id))
						fill(in)
						err := n.Conn.Invoke(n.ctx(), m.full, in.Interface(), m.out.New().Interface())
						if code := status.Code(err); idempotent[name] && err != nil && id != "" || !idempotent[name] && code != codes.NotFound {
							t.Errorf("with %s: code %s, %v", what, code, err)
						}
					}
				}
				n.mustList(1, 1)
			})
		})
	}
	if _, err := os.Stat(canary); err != nil {
		t.Error(err)
	}
	if st := c.status(); st.State != criapi.ContainerState_CONTAINER_RUNNING {
		t.Errorf("the container is %s", st.State)
	}
	t.Run("a prefix is enough, if it is unique", func(t *testing.T) {
		r, err := n.Runtime.ContainerStatus(n.ctx(), &criapi.ContainerStatusRequest{ContainerId: c.id[:12]})
		if err != nil || r.Status.Id != c.id {
			t.Errorf("status of a prefix: %v", err)
		}
	})
}
