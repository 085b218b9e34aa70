package linux

import (
	"errors"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestRtnl asks the kernel about the loopback, and about a device that is not there.
func TestRtnl(t *testing.T) {
	r, err := OpenRtnl()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	name := func(s string) []byte {
		return Attribute{Type: unix.IFLA_IFNAME, Data: append([]byte(s), 0)}.Append(make([]byte, unix.SizeofIfInfomsg))
	}
	answer, err := r.Do(unix.RTM_GETLINK, 0, name("lo"))
	if err != nil || len(answer) != 1 {
		t.Fatalf("%d messages, %v", len(answer), err)
	}
	found := ""
	for _, a := range Attributes(answer[0].Data[unix.SizeofIfInfomsg:]) {
		if a.Type == unix.IFLA_IFNAME {
			found = strings.TrimRight(string(a.Data), "\x00")
		}
	}
	if found != "lo" {
		t.Errorf("the device is %q", found)
	}
	if _, err := r.Do(unix.RTM_GETLINK, 0, name("no-such-device")); !errors.Is(err, unix.ENODEV) {
		t.Errorf("%v, want ENODEV", err)
	}
	if all, err := r.Do(unix.RTM_GETLINK, unix.NLM_F_DUMP, make([]byte, unix.SizeofIfInfomsg)); err != nil || len(all) == 0 {
		t.Errorf("%d devices, %v", len(all), err)
	}
}

// TestAckError: words of the kernel's come along.
func TestAckError(t *testing.T) {
	data := []byte{0xea, 0xff, 0xff, 0xff} // -EINVAL
	data = append(data, make([]byte, unix.NLMSG_HDRLEN)...)
	data = Attribute{Type: unix.NLMSGERR_ATTR_MSG, Data: []byte("why\x00")}.Append(data)
	err := ackError(syscall.NetlinkMessage{Header: syscall.NlMsghdr{Flags: unix.NLM_F_ACK_TLVS}, Data: data})
	if !errors.Is(err, unix.EINVAL) || !strings.Contains(err.Error(), "(why)") {
		t.Error(err)
	}
	if err := ackError(syscall.NetlinkMessage{Data: make([]byte, 4)}); err != nil {
		t.Error(err)
	}
	if err := ackError(syscall.NetlinkMessage{}); err == nil {
		t.Error("an empty acknowledgement is none")
	}
}

// FuzzAttributes: what is read stays within the message, and what was read and is written again is read the same.
func FuzzAttributes(f *testing.F) {
	f.Add([]byte{5, 0, 3, 0, 'l', 0, 0, 0, 8, 0, 1, 0, 1, 2, 3, 4})
	f.Add([]byte{3, 0, 0, 0})
	f.Add([]byte{255, 255, 1, 0, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		var again []byte
		list := Attributes(b)
		for _, a := range list {
			again = a.Append(again)
		}
		second := Attributes(again)
		if len(second) != len(list) {
			t.Fatalf("%d attributes, then %d", len(list), len(second))
		}
		for i := range list {
			if list[i].Type != second[i].Type || string(list[i].Data) != string(second[i].Data) {
				t.Errorf("attribute %d: %v, then %v", i, list[i], second[i])
			}
		}
	})
}
