package linux

import (
	"encoding/binary"
	"fmt"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Rtnl is a socket of rtnetlink(7): requests about network devices and addresses. It stays in the network namespace
// that the calling thread was in when it was opened.
type Rtnl struct {
	fd  int
	seq uint32
}

// OpenRtnl opens a socket in the calling thread's network namespace.
func OpenRtnl() (*Rtnl, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open rtnetlink socket: %w", err)
	}
	// Words with an errno, and the request not repeated in the answer.
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1)
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
	return &Rtnl{fd: fd}, nil
}

// Close closes the socket.
func (r *Rtnl) Close() { _ = unix.Close(r.fd) }

// Do sends one request and gives the messages of the answer. Without NLM_F_DUMP the kernel's acknowledgement ends it.
func (r *Rtnl) Do(typ, flags uint16, body []byte) ([]syscall.NetlinkMessage, error) {
	r.seq++
	flags |= unix.NLM_F_REQUEST
	if flags&unix.NLM_F_DUMP != unix.NLM_F_DUMP {
		flags |= unix.NLM_F_ACK
	}
	msg := binary.NativeEndian.AppendUint32(nil, uint32(unix.NLMSG_HDRLEN+len(body)))
	msg = binary.NativeEndian.AppendUint16(msg, typ)
	msg = binary.NativeEndian.AppendUint16(msg, flags)
	msg = binary.NativeEndian.AppendUint32(msg, r.seq)
	msg = binary.NativeEndian.AppendUint32(msg, 0)
	if err := unix.Sendto(r.fd, append(msg, body...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, fmt.Errorf("send to rtnetlink: %w", err)
	}
	var list []syscall.NetlinkMessage
	for {
		buf := make([]byte, 1<<16) // more than the kernel puts into one packet; messages keep pointing into it
		n, _, err := unix.Recvfrom(r.fd, buf, 0)
		if err != nil {
			return nil, fmt.Errorf("receive from rtnetlink: %w", err)
		}
		part, err := syscall.ParseNetlinkMessage(buf[:n])
		if err != nil {
			return nil, fmt.Errorf("parse rtnetlink messages: %w", err)
		}
		for _, m := range part {
			switch {
			case m.Header.Seq != r.seq:
			case m.Header.Type == unix.NLMSG_DONE:
				return list, nil
			case m.Header.Type == unix.NLMSG_ERROR:
				return list, ackError(m)
			default:
				list = append(list, m)
			}
		}
	}
}

// ackError reads an acknowledgement: an errno, 0 for success, and perhaps words about it.
func ackError(m syscall.NetlinkMessage) error {
	if len(m.Data) < 4 {
		return unix.EBADMSG
	}
	errno := -int32(binary.NativeEndian.Uint32(m.Data))
	if errno == 0 {
		return nil
	}
	const header = 4 + unix.NLMSG_HDRLEN
	if m.Header.Flags&unix.NLM_F_ACK_TLVS != 0 && len(m.Data) >= header {
		for _, a := range Attributes(m.Data[header:]) {
			if a.Type == unix.NLMSGERR_ATTR_MSG {
				return fmt.Errorf("%w (%s)", syscall.Errno(errno), strings.TrimRight(string(a.Data), "\x00"))
			}
		}
	}
	return syscall.Errno(errno)
}

// Attribute is one of the values behind a message's fixed part.
type Attribute struct {
	Type uint16
	Data []byte
}

// Attributes reads them up to the first that is malformed.
func Attributes(b []byte) []Attribute {
	var list []Attribute
	for len(b) >= unix.SizeofRtAttr {
		n := int(binary.NativeEndian.Uint16(b))
		if n < unix.SizeofRtAttr || n > len(b) {
			break
		}
		list = append(list, Attribute{binary.NativeEndian.Uint16(b[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER), b[unix.SizeofRtAttr:n]})
		b = b[min((n+3)&^3, len(b)):]
	}
	return list
}

// Append adds the attribute to a message.
func (a Attribute) Append(b []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofRtAttr+len(a.Data)))
	b = binary.NativeEndian.AppendUint16(b, a.Type)
	b = append(b, a.Data...)
	return append(b, make([]byte, -len(a.Data)&3)...)
}
