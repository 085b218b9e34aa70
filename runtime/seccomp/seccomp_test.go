//go:build cgo

package seccomp

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	moby "github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	lib "github.com/seccomp/libseccomp-golang"
	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/internal/linux"
)

// TestMain lets the test binary play the process under a filter: it loads the
// filter of the profile on its standard input and prints what some calls give.
func TestMain(m *testing.M) {
	if os.Getenv("SECCOMP_TEST_CHILD") == "" {
		os.Exit(m.Run())
	}
	runtime.LockOSThread()
	if err := underFilter(); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(0)
}

func underFilter() error {
	var profile specs.LinuxSeccomp
	if err := json.NewDecoder(os.Stdin).Decode(&profile); err != nil {
		return err
	}
	filter, err := Compile(&profile)
	if err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	if _, err := linux.LoadSeccomp(filter.BPF, filter.Flags); err != nil {
		return err
	}
	call := func(name string, number, a, b uintptr) {
		_, _, errno := unix.RawSyscall(number, a, b, 0)
		fmt.Printf("%s=%s ", name, unix.ErrnoName(errno))
	}
	const nowhere = 1 // an address that no call can read
	call("getpid", unix.SYS_GETPID, 0, 0)
	call("keyctl", unix.SYS_KEYCTL, 0, 0)
	call("mount", unix.SYS_MOUNT, nowhere, nowhere)
	call("clone3", unix.SYS_CLONE3, nowhere, 88)
	call("fchmodat2", 452, ^uintptr(0), nowhere)
	call("unknown", 499, 0, 0)
	call("personality", unix.SYS_PERSONALITY, 0xffffffff, 0)
	call("personality2", unix.SYS_PERSONALITY, 0x0200000, 0)
	return nil
}

// inChild returns what the calls gave in a process under the profile.
func inChild(t *testing.T, profile *specs.LinuxSeccomp) string {
	t.Helper()
	text, err := json.Marshal(profile)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "SECCOMP_TEST_CHILD=1")
	cmd.Stdin = bytes.NewReader(text)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("child: %v: %s", err, out)
	}
	return strings.TrimSpace(string(out))
}

// defaultProfile is what a container without added capabilities gets.
func defaultProfile(t testing.TB) *specs.LinuxSeccomp {
	t.Helper()
	profile, err := moby.GetDefaultProfile(&specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{}}})
	if err != nil {
		t.Fatal(err)
	}
	return profile
}

func TestDefaultProfileIsEnforced(t *testing.T) {
	profile := defaultProfile(t)
	filter, err := Compile(profile)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("libseccomp %s: %d instructions, flags %#x", LibraryVersion(), filter.Insns, filter.Flags)
	// keyctl and mount are refused with EPERM, clone3 with ENOSYS on purpose;
	// fchmodat2 is allowed though libseccomp may not know it, and gets as far as
	// its bad address; a call of the future is ENOSYS.
	want := "getpid= keyctl=EPERM mount=EPERM clone3=ENOSYS fchmodat2=EFAULT unknown=ENOSYS personality= personality2=EPERM"
	if diff := cmp.Diff(want, inChild(t, profile)); diff != "" {
		t.Error(diff)
	}
}

// allowing is a profile that allows all but what its rules say.
func allowing(rules ...specs.LinuxSyscall) *specs.LinuxSeccomp {
	return &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: rules}
}

func TestActionsAndArguments(t *testing.T) {
	for _, test := range []struct {
		name    string
		profile *specs.LinuxSeccomp
		want    string // part of what the child prints
	}{
		{"errno", allowing(specs.LinuxSyscall{Names: []string{"getpid", "no_such_call"}, Action: specs.ActErrno, ErrnoRet: new(uint(unix.EXDEV))}), "getpid=EXDEV "},
		{"argument", allowing(specs.LinuxSyscall{Names: []string{"personality"}, Action: specs.ActErrno, Args: []specs.LinuxSeccompArg{
			{Index: 0, Value: 0x0200000, Op: specs.OpEqualTo},
		}}), "personality= personality2=EPERM"},
		{"masked", allowing(specs.LinuxSyscall{Names: []string{"personality"}, Action: specs.ActErrno, Args: []specs.LinuxSeccompArg{
			{Index: 0, Value: 0xf0000000, ValueTwo: 0xf0000000, Op: specs.OpMaskedEqual},
		}}), "personality=EPERM personality2="},
		{"one argument twice is either", allowing(specs.LinuxSyscall{Names: []string{"personality"}, Action: specs.ActErrno, Args: []specs.LinuxSeccompArg{
			{Index: 0, Value: 0x0200000, Op: specs.OpEqualTo}, {Index: 0, Value: 0xffffffff, Op: specs.OpEqualTo},
		}}), "personality=EPERM personality2=EPERM"},
		{"newer than libseccomp", allowing(specs.LinuxSyscall{Names: []string{"fchmodat2"}, Action: specs.ActErrno, ErrnoRet: new(uint(unix.EXDEV))}), "fchmodat2=EXDEV unknown=ENOSYS personality="},
		{"rule as the default", allowing(specs.LinuxSyscall{Names: []string{"getpid"}, Action: specs.ActAllow}), "getpid= "},
		{"log and architectures", &specs.LinuxSeccomp{
			DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchMIPS, specs.ArchSHEB, specs.ArchAARCH64},
			Flags: []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagLog, "SECCOMP_FILTER_FLAG_TSYNC"}, Syscalls: []specs.LinuxSyscall{{Names: []string{"mount"}, Action: specs.ActErrno}},
		}, "mount=EPERM"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := inChild(t, test.profile); !strings.Contains(got+" ", test.want) {
				t.Errorf("%q is not in %q", test.want, got)
			}
		})
	}
}

func TestFlags(t *testing.T) {
	for _, test := range []struct {
		name  string
		flags []specs.LinuxSeccompFlag
		want  uint32
	}{
		{"not said", nil, flagSpecAllow},
		{"none", []specs.LinuxSeccompFlag{}, 0},
		{"all", []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagLog, specs.LinuxSeccompFlagSpecAllow, specs.LinuxSeccompFlagWaitKillableRecv}, unix.SECCOMP_FILTER_FLAG_LOG | unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW | unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV},
	} {
		profile := allowing()
		profile.Flags = test.flags
		filter, err := Compile(profile)
		if err != nil || filter.Flags != test.want {
			t.Errorf("%s: flags %#x, %v", test.name, filter.Flags, err)
		}
	}
}

func TestNotifyAsksForAListener(t *testing.T) {
	profile := allowing(specs.LinuxSyscall{Names: []string{"mount"}, Action: specs.ActNotify})
	if _, err := Compile(profile); err == nil || !strings.Contains(err.Error(), "linux.seccomp.listenerPath") {
		t.Errorf("without a listener: %v", err)
	}
	profile.ListenerPath = "/run/agent.sock"
	filter, err := Compile(profile)
	if err != nil || !filter.Notify || filter.Flags&unix.SECCOMP_FILTER_FLAG_NEW_LISTENER == 0 {
		t.Errorf("filter %+v, %v", filter, err)
	}
}

func TestErrorsNameTheField(t *testing.T) {
	read := []string{"read"}
	for _, test := range []struct {
		name    string
		profile *specs.LinuxSeccomp
		want    string
	}{
		{"no action", &specs.LinuxSeccomp{}, `linux.seccomp.defaultAction: unknown action ""`},
		{"default notify", &specs.LinuxSeccomp{DefaultAction: specs.ActNotify}, "linux.seccomp.defaultAction: SCMP_ACT_NOTIFY"},
		{"default errno", &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, DefaultErrnoRet: new(uint(70000))}, "defaultAction: errno 70000"},
		{"architecture", &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: []specs.Arch{"amd64"}}, "architectures[0]: unknown"},
		{"flag", &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Flags: []specs.LinuxSeccompFlag{"X"}}, "flags[0]: unknown"},
		{"no names", allowing(specs.LinuxSyscall{Action: specs.ActErrno}), "syscalls[0].names: is empty"},
		{"empty name", allowing(specs.LinuxSyscall{Names: []string{""}, Action: specs.ActErrno}), "syscalls[0].names[0]: is empty"},
		{"action", allowing(specs.LinuxSyscall{Names: read, Action: "SCMP_ACT_WISH"}), "syscalls[0].action: unknown"},
		{"errno without use", allowing(specs.LinuxSyscall{Names: read, Action: specs.ActKill, ErrnoRet: new(uint(1))}), "takes no errno"},
		{"operator", allowing(specs.LinuxSyscall{Names: read, Action: specs.ActErrno, Args: []specs.LinuxSeccompArg{{}}}), "syscalls[0].args[0].op"},
		{"index", allowing(specs.LinuxSyscall{Names: read, Action: specs.ActErrno, Args: []specs.LinuxSeccompArg{{Op: specs.OpEqualTo, Index: 6}}}), "args[0].index: 6"},
		{"notify write", allowing(specs.LinuxSyscall{Names: []string{"write"}, Action: specs.ActNotify}), "syscalls[0].names: write"},
	} {
		_, err := Compile(test.profile)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: error %v does not say %q", test.name, err, test.want)
		}
	}
}

func TestCompileOnce(t *testing.T) {
	first, err := Compile(defaultProfile(t))
	if err != nil {
		t.Fatal(err)
	}
	before := Misses()
	var group sync.WaitGroup
	profile := defaultProfile(t)
	profile.Syscalls = append(profile.Syscalls, specs.LinuxSyscall{Names: []string{"keyctl"}, Action: specs.ActErrno, ErrnoRet: new(uint(99))})
	for range 8 {
		group.Go(func() {
			same, err := Compile(defaultProfile(t))
			if err != nil || same != first {
				t.Errorf("the same profile gives another filter (%v)", err)
			}
			if other, err := Compile(profile); err != nil || other.Hash == first.Hash {
				t.Errorf("another profile gives the same hash (%v)", err)
			}
		})
	}
	group.Wait()
	if n := Misses() - before; n != 1 {
		t.Errorf("%d compilations of one new profile", n)
	}
	if filter, err := Compile(nil); filter != nil || err != nil {
		t.Errorf("nil: %v, %v", filter, err)
	}
}

func TestCacheIsBounded(t *testing.T) {
	for i := range 2 * cacheSize {
		if _, err := Compile(allowing(specs.LinuxSyscall{Names: []string{"read"}, Action: specs.ActErrno, ErrnoRet: new(uint(i))})); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Compile(&specs.LinuxSeccomp{}); err == nil {
		t.Error("an empty profile was taken")
	}
	cache.Lock()
	defer cache.Unlock()
	if len(cache.entries) > cacheSize || len(cache.order) != len(cache.entries) {
		t.Errorf("%d entries, %d in order", len(cache.entries), len(cache.order))
	}
}

// A hash must differ where the filter does.
func TestHashSeesEveryField(t *testing.T) {
	base := func() *specs.LinuxSeccomp {
		return &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{{
			Names: []string{"read", "write"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Op: specs.OpEqualTo}},
		}}}
	}
	seen := map[string]int{hashOf(base()): -1}
	for i, change := range []func(*specs.LinuxSeccomp){
		func(p *specs.LinuxSeccomp) { p.DefaultAction = specs.ActAllow },
		func(p *specs.LinuxSeccomp) { p.DefaultErrnoRet = new(uint(0)) },
		func(p *specs.LinuxSeccomp) { p.Architectures = []specs.Arch{specs.ArchX86} },
		func(p *specs.LinuxSeccomp) { p.Flags = []specs.LinuxSeccompFlag{} },
		func(p *specs.LinuxSeccomp) { p.Flags = []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagLog} },
		func(p *specs.LinuxSeccomp) { p.ListenerPath = "/x" },
		func(p *specs.LinuxSeccomp) { p.Syscalls = nil },
		func(p *specs.LinuxSeccomp) { p.Syscalls[0].Names = []string{"readwrite"} },
		func(p *specs.LinuxSeccomp) { p.Syscalls[0].Names = []string{"read"} },
		func(p *specs.LinuxSeccomp) { p.Syscalls[0].Action = specs.ActLog },
		func(p *specs.LinuxSeccomp) { p.Syscalls[0].ErrnoRet = new(uint(5)) },
		func(p *specs.LinuxSeccomp) { p.Syscalls[0].Args = nil },
		func(p *specs.LinuxSeccomp) { p.Syscalls[0].Args[0].Index = 1 },
		func(p *specs.LinuxSeccomp) { p.Syscalls[0].Args[0].Value = 1 },
		func(p *specs.LinuxSeccomp) { p.Syscalls[0].Args[0].ValueTwo = 1 },
		func(p *specs.LinuxSeccomp) { p.Syscalls[0].Args[0].Op = specs.OpNotEqual },
	} {
		p := base()
		change(p)
		if old, ok := seen[hashOf(p)]; ok {
			t.Errorf("changes %d and %d have one hash", i, old)
		}
		seen[hashOf(p)] = i
	}
}

// The list of common names must agree with libseccomp where that knows them.
func TestCommonNumbers(t *testing.T) {
	unknown := 0
	for i, name := range common {
		number, err := lib.GetSyscallFromName(name)
		if errors.Is(err, lib.ErrSyscallDoesNotExist) {
			unknown++
			continue
		}
		if int(number) >= 0 && int(number) != firstCommon+i {
			t.Errorf("%s is %d, not %d", name, number, firstCommon+i)
		}
	}
	t.Logf("libseccomp %s does not know %d of the %d newest calls", LibraryVersion(), unknown, len(common))
}

// FuzzProfile feeds JSON as it comes from a localhost profile. Whatever it is,
// the answer is an error or a filter that the kernel's checks would take.
func FuzzProfile(f *testing.F) {
	text, err := json.Marshal(defaultProfile(f))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":38,"architectures":["SCMP_ARCH_X86"],"syscalls":[{"names":["futex_wake","mount"],"action":"SCMP_ACT_LOG","args":[{"index":1,"value":7,"op":"SCMP_CMP_GE"},{"index":1,"value":9,"op":"SCMP_CMP_NE"}]}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var profile specs.LinuxSeccomp
		if len(data) > 1<<16 || json.Unmarshal(data, &profile) != nil {
			return
		}
		filter, err := Compile(&profile)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "linux.seccomp.") {
				t.Errorf("error %q names no field", err)
			}
			return
		}
		if filter.Insns == 0 || filter.Insns > maxInsns || len(filter.BPF) != filter.Insns*insnSize {
			t.Errorf("%d instructions in %d bytes", filter.Insns, len(filter.BPF))
		}
		if err := checkJumps(filter.BPF); err != nil {
			t.Error(err)
		}
	})
}

// checkJumps is the part of the kernel's check that a mistake here would hit:
// jumps stay inside, and the last instruction returns.
func checkJumps(bpf []byte) error {
	n := len(bpf) / insnSize
	for i := range n {
		code := uint16(bpf[i*insnSize]) | uint16(bpf[i*insnSize+1])<<8
		jt, jf := int(bpf[i*insnSize+2]), int(bpf[i*insnSize+3])
		if code&7 == unix.BPF_JMP && code&0xf0 != unix.BPF_JA && (i+1+jt >= n || i+1+jf >= n) {
			return fmt.Errorf("instruction %d of %d jumps out", i, n)
		}
		if i == n-1 && code&7 != unix.BPF_RET {
			return fmt.Errorf("the last instruction is %#x", code)
		}
	}
	return nil
}

func BenchmarkCached(b *testing.B) {
	profile := defaultProfile(b)
	if _, err := Compile(profile); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := Compile(profile); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCompile(b *testing.B) {
	profile := defaultProfile(b)
	for b.Loop() {
		if _, err := compile(profile); err != nil {
			b.Fatal(err)
		}
	}
}
