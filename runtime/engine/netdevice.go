package engine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/internal/linux"
)

// moveDevice moves a network device of our network namespace into that of a process. What it had is kept: the kernel
// keeps its attributes, and the addresses, which it drops, are set again (runtime-spec, config-linux.md, Network
// Devices). A name that ends in %d lets the kernel choose a number.
func moveDevice(pid int, device, name string) error {
	path := "/proc/" + strconv.Itoa(pid) + "/ns/net"
	if err := notOwn(path, "net"); err != nil {
		return err
	}
	ns, err := openNS(path)
	if err != nil {
		return err
	}
	defer unix.Close(ns)
	here, err := linux.OpenRtnl()
	if err != nil {
		return err
	}
	defer here.Close()
	there, err := openRtnlIn(ns)
	if err != nil {
		return err
	}
	defer there.Close()
	index, err := linkIndex(here, device)
	if err != nil {
		return err
	}
	addresses, err := permanentAddresses(here, index)
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	if !strings.HasSuffix(name, "%d") {
		// Else the kernel would refuse the new name only once the device has moved.
		if _, err := linkIndex(there, name); err == nil {
			return fmt.Errorf("the container's network namespace has a device %s already: %w", name, unix.EEXIST)
		}
	}
	if index, err = moveLink(here, index, ns, name); err != nil {
		return err
	}
	for _, a := range addresses {
		binary.NativeEndian.PutUint32(a[4:], uint32(index))
		if _, err := there.Do(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, a); err != nil {
			return fmt.Errorf("set address again: %w", err)
		}
	}
	up := linkMessage(index, unix.IFF_UP)
	if _, err := there.Do(unix.RTM_NEWLINK, 0, up); err != nil {
		return fmt.Errorf("set up: %w", err)
	}
	return nil
}

// notOwn refuses a namespace that is the runtime's own.
func notOwn(path, typ string) error {
	var theirs, ours unix.Stat_t
	if err := unix.Stat(path, &theirs); err != nil {
		return err
	}
	if err := unix.Stat("/proc/self/ns/"+typ, &ours); err != nil {
		return err
	}
	if theirs.Dev == ours.Dev && theirs.Ino == ours.Ino {
		return fmt.Errorf("it is the runtime's own %s namespace, which would be changed: %w", typ, os.ErrInvalid)
	}
	return nil
}

// openRtnlIn opens a socket in a network namespace, on a thread that is thrown away.
func openRtnlIn(ns int) (r *linux.Rtnl, err error) {
	done := make(chan struct{})
	linux.GoThread(func() {
		defer close(done)
		if err = unix.Setns(ns, unix.CLONE_NEWNET); err != nil {
			err = fmt.Errorf("enter network namespace: %w", err)
			return
		}
		r, err = linux.OpenRtnl()
	})
	<-done
	return r, err
}

// linkMessage is a struct ifinfomsg.
func linkMessage(index int, change uint32) []byte {
	b := make([]byte, 4, 64)
	b = binary.NativeEndian.AppendUint32(b, uint32(index))
	b = binary.NativeEndian.AppendUint32(b, change)
	return binary.NativeEndian.AppendUint32(b, change)
}

func nameAttribute(name string) linux.Attribute {
	return linux.Attribute{Type: unix.IFLA_IFNAME, Data: append([]byte(name), 0)}
}

func numberAttribute(typ uint16, n int) linux.Attribute {
	return linux.Attribute{Type: typ, Data: binary.NativeEndian.AppendUint32(nil, uint32(n))}
}

// linkIndex finds a device by its name.
func linkIndex(r *linux.Rtnl, name string) (int, error) {
	answer, err := r.Do(unix.RTM_GETLINK, 0, nameAttribute(name).Append(linkMessage(0, 0)))
	if err != nil {
		return 0, err
	}
	for _, m := range answer {
		if m.Header.Type == unix.RTM_NEWLINK && len(m.Data) >= unix.SizeofIfInfomsg {
			return int(int32(binary.NativeEndian.Uint32(m.Data[4:]))), nil
		}
	}
	return 0, unix.ENODEV
}

// moveLink moves a device, and gives its index there: its own, or the next that is free, because a device whose name the
// kernel chooses could not be found otherwise.
func moveLink(r *linux.Rtnl, index, ns int, name string) (int, error) {
	for next := index; next < index+1000; next++ {
		msg := linkMessage(index, 0)
		for _, a := range []linux.Attribute{numberAttribute(unix.IFLA_NET_NS_FD, ns), nameAttribute(name), numberAttribute(unix.IFLA_NEW_IFINDEX, next)} {
			msg = a.Append(msg)
		}
		_, err := r.Do(unix.RTM_NEWLINK, 0, msg)
		if err == nil || !errors.Is(err, unix.EBUSY) {
			return next, err
		}
	}
	return 0, fmt.Errorf("no free index near %d: %w", index, unix.EBUSY)
}

// keptFlags of an address are what its owner has asked for; the others say how the kernel is getting on with it.
const keptFlags = unix.IFA_F_NODAD | unix.IFA_F_HOMEADDRESS | unix.IFA_F_MANAGETEMPADDR | unix.IFA_F_NOPREFIXROUTE | unix.IFA_F_MCAUTOJOIN

// permanentAddresses gives the addresses of global scope that do not run out, each as the message that sets it.
func permanentAddresses(r *linux.Rtnl, index int) ([][]byte, error) {
	answer, err := r.Do(unix.RTM_GETADDR, unix.NLM_F_DUMP, make([]byte, unix.SizeofIfAddrmsg))
	if err != nil {
		return nil, err
	}
	var list [][]byte
	for _, m := range answer {
		// struct ifaddrmsg: family, prefix length, flags, scope, index.
		if m.Header.Type != unix.RTM_NEWADDR || len(m.Data) < unix.SizeofIfAddrmsg || binary.NativeEndian.Uint32(m.Data[4:]) != uint32(index) {
			continue
		}
		if m.Data[3] != unix.RT_SCOPE_UNIVERSE {
			continue
		}
		if a, ok := readAddress(m.Data); ok {
			list = append(list, a)
		}
	}
	return list, nil
}

func readAddress(data []byte) (msg []byte, permanent bool) {
	flags := uint32(data[2])
	msg = append(msg, data[0], data[1], 0, data[3], 0, 0, 0, 0)
	for _, a := range linux.Attributes(data[unix.SizeofIfAddrmsg:]) {
		switch a.Type {
		case unix.IFA_FLAGS:
			flags = binary.NativeEndian.Uint32(a.Data)
		case unix.IFA_CACHEINFO, unix.IFA_LABEL: // lifetimes; the device's name, which changes
		default:
			msg = a.Append(msg)
		}
	}
	return numberAttribute(unix.IFA_FLAGS, int(flags&keptFlags)).Append(msg), flags&unix.IFA_F_PERMANENT != 0
}
