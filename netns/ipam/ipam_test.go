package ipam

import (
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

func open(t *testing.T, dir, boot string) *Store {
	t.Helper()
	s, err := Open(dir, boot, quiet)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func acquire(t *testing.T, s *Store, pod, subnet string) netip.Addr {
	t.Helper()
	l, _, err := s.Acquire(Lease{Owner: Owner{pod, "eth0"}}, []netip.Prefix{netip.MustParsePrefix(subnet)})
	if err != nil {
		t.Fatal(err)
	}
	return l.Addrs[0].Addr()
}

func TestRange(t *testing.T) {
	for _, tc := range []struct{ name, subnet, first, last string }{
		{"/16", "10.88.0.0/16", "10.88.0.2", "10.88.255.254"},
		{"/24", "10.1.2.0/24", "10.1.2.2", "10.1.2.254"},
		{"/30", "10.1.2.4/30", "10.1.2.6", "10.1.2.6"},
		{"IPv6 has no broadcast", "fd00::/120", "fd00::2", "fd00::ff"},
	} {
		first, last := Range(netip.MustParsePrefix(tc.subnet))
		if first.String() != tc.first || last.String() != tc.last {
			t.Errorf("%s: %s to %s, want %s to %s", tc.name, first, last, tc.first, tc.last)
		}
	}
}

func TestAcquireGoesRound(t *testing.T) {
	s := open(t, t.TempDir(), "boot")
	now := time.Now()
	s.now = func() time.Time { return now }
	const subnet = "10.0.0.0/29" // five pods: .2 to .6
	if got := acquire(t, s, "a", subnet).String(); got != "10.0.0.2" {
		t.Errorf("first address %s, want 10.0.0.2", got)
	}
	acquire(t, s, "b", subnet)
	if err := s.Release(Owner{"a", "eth0"}); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, pod := range []string{"c", "d", "e", "f"} {
		got = append(got, acquire(t, s, pod, subnet).String())
	}
	// The freed .2 comes last, although it has not rested: nothing else is left.
	if d := cmp.Diff([]string{"10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.0.2"}, got); d != "" {
		t.Error(d)
	}
	_, _, err := s.Acquire(Lease{Owner: Owner{"g", "eth0"}}, []netip.Prefix{netip.MustParsePrefix(subnet)})
	if !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), subnet) {
		t.Errorf("sixth pod: %v, want ErrFull naming %s", err, subnet)
	}
	for _, pod := range []string{"d", "c"} { // .5 rests longer than .4
		if err := s.Release(Owner{pod, "eth0"}); err != nil {
			t.Fatal(err)
		}
		now = now.Add(time.Second)
	}
	if got := acquire(t, s, "h", subnet).String(); got != "10.0.0.5" {
		t.Errorf("after two releases %s, want the one that rested longer, 10.0.0.5", got)
	}
}

func TestLeasesSurviveRestart(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, "boot")
	l, _, err := s.Acquire(Lease{
		Owner: Owner{"a", "eth0"}, Network: "n",
		Ports: []Port{{Protocol: "tcp", HostIP: netip.MustParseAddr("127.0.0.1"), HostPort: 80, PodPort: 8080}, {Protocol: "udp", HostPort: 53, PodPort: 53}},
	}, []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")})
	if err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, "boot")
	equal := cmp.Options{cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})}
	if d := cmp.Diff([]Lease{l}, s.List(), equal); d != "" {
		t.Error(d)
	}
	again, had, err := s.Acquire(Lease{Owner: l.Owner}, []netip.Prefix{netip.MustParsePrefix("10.9.0.0/24")})
	if err != nil || !had {
		t.Fatalf("second Acquire: had %v, err %v", had, err)
	}
	if d := cmp.Diff(l, again, equal); d != "" {
		t.Error(d)
	}
	for range 2 {
		if err := s.Release(l.Owner); err != nil {
			t.Fatal(err)
		}
	}
	if got := open(t, dir, "boot").List(); len(got) != 0 {
		t.Errorf("released lease came back: %v", got)
	}
}

func TestOpenDropsWhatCannotBe(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, "boot")
	addr := acquire(t, s, "good", "10.0.0.0/24")
	for name, content := range map[string]string{
		"torn@eth0":    "",
		"half@eth0":    `{"pod":"half","ifNa`,
		"renamed@eth0": `{"pod":"other","ifName":"eth0","addrs":["10.0.0.9/24"]}`,
		"zdup@eth0":    `{"pod":"zdup","ifName":"eth0","addrs":["` + addr.String() + `/24"]}`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s = open(t, dir, "boot")
	if l := s.List(); len(l) != 1 || l[0].Pod != "good" {
		t.Errorf("leases %v, want only that of good", l)
	}
	acquire(t, s, "torn", "10.0.0.0/24") // its file must not be in the way
	if l := open(t, dir, "another boot").List(); len(l) != 0 {
		t.Errorf("leases of another boot: %v", l)
	}
	if files, _ := filepath.Glob(filepath.Join(dir, "*@*")); len(files) != 0 {
		t.Errorf("files left: %v", files)
	}
}

func TestRestartDoesNotReuseAtOnce(t *testing.T) {
	dir := t.TempDir()
	last := acquire(t, open(t, dir, "boot"), "a", "10.0.0.0/8")
	same := 0
	for range 20 {
		s := open(t, dir, "boot")
		if err := s.Release(Owner{"a", "eth0"}); err != nil {
			t.Fatal(err)
		}
		s = open(t, dir, "boot")
		addr := acquire(t, s, "a", "10.0.0.0/8")
		if addr == last {
			same++
		}
		last = addr
	}
	if same > 3 {
		t.Errorf("the address freed last was leased first %d times of 20", same)
	}
}

func TestBothFamiliesGoTogether(t *testing.T) {
	s := open(t, t.TempDir(), "boot")
	now := time.Now()
	s.now = func() time.Time { return now }
	for _, tc := range []struct {
		name, pod string
		subnets   []string
		want      []string
	}{
		{"first", "a", []string{"10.0.0.0/29", "fd00::/64"}, []string{"10.0.0.2/29", "fd00::2/64"}},
		{"second, the other order", "b", []string{"fd00::/64", "10.0.0.0/29"}, []string{"fd00::3/64", "10.0.0.3/29"}},
		{"IPv6 alone", "c", []string{"fd00::/64"}, []string{"fd00::4/64"}},
		{"whose number is taken", "d", []string{"10.0.0.0/29", "fd00::/64"}, []string{"10.0.0.4/29", "fd00::5/64"}},
		{"the smaller subnet of IPv6 leads", "e", []string{"10.0.0.0/8", "fd01::/126"}, []string{"10.0.0.2/8", "fd01::2/126"}},
	} {
		var subnets []netip.Prefix
		for _, x := range tc.subnets {
			subnets = append(subnets, netip.MustParsePrefix(x))
		}
		if tc.name == "the smaller subnet of IPv6 leads" {
			s = open(t, t.TempDir(), "boot")
		}
		l, _, err := s.Acquire(Lease{Owner: Owner{tc.pod, "eth0"}}, subnets)
		if err != nil {
			t.Fatalf("%s: %v", tc.name, err)
		}
		var got []string
		for _, a := range l.Addrs {
			got = append(got, a.String())
		}
		if d := cmp.Diff(tc.want, got); d != "" {
			t.Errorf("%s: %s", tc.name, d)
		}
	}
	// Nothing is taken when one of the two is full.
	full := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd01::/126")}
	if _, _, err := s.Acquire(Lease{Owner: Owner{"f", "eth0"}}, full); err != nil {
		t.Fatal(err)
	}
	_, _, err := s.Acquire(Lease{Owner: Owner{"g", "eth0"}}, full)
	if !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), "fd01::/126") || len(s.List()) != 2 {
		t.Errorf("third pod of fd01::/126: %v with %d leases, want ErrFull and 2", err, len(s.List()))
	}
}
