package linux

import (
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// PageSize is the size of a SharedPage in bytes, whatever the machine's is.
const PageSize = 4096

// SharedPage is a page that this process and another map at the same time, and
// read and write by atomic words. It carries what a process must be able to say
// without a system call or a buffer, such as how far an init has come before it
// was killed.
//
// Offsets are in bytes and must be aligned to the word; a wrong one is a bug in
// the caller and panics. Words are in the machine's byte order.
type SharedPage struct {
	file *os.File
	mem  []byte
}

// NewSharedPage makes an anonymous page of zeros. It is a memfd whose size is
// sealed: a peer that could truncate it would kill us by SIGBUS at the next
// load (memfd_create(2), F_SEAL_SHRINK).
func NewSharedPage(name string) (*SharedPage, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("create shared page %s: %w", name, err)
	}
	file := os.NewFile(uintptr(fd), "memfd:"+name)
	if err := file.Truncate(PageSize); err != nil {
		file.Close()
		return nil, fmt.Errorf("size shared page %s: %w", name, err)
	}
	if _, err := unix.FcntlInt(file.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW); err != nil {
		file.Close()
		return nil, fmt.Errorf("seal shared page %s: %w", name, err)
	}
	return MapSharedPage(file)
}

// MapSharedPage maps the first page of a file and takes the file over. Of files
// that are no memfd of NewSharedPage the caller knows that nobody truncates them.
func MapSharedPage(file *os.File) (*SharedPage, error) {
	mem, err := unix.Mmap(int(file.Fd()), 0, PageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("map shared page %s: %w", file.Name(), err)
	}
	return &SharedPage{file: file, mem: mem}, nil
}

// File is the descriptor to hand to the peer; it stays the page's own.
func (p *SharedPage) File() *os.File { return p.file }

// Close unmaps the page and closes its file; the peer keeps its own mapping.
func (p *SharedPage) Close() error {
	if p.mem == nil {
		return nil
	}
	err := unix.Munmap(p.mem)
	p.mem = nil
	if cerr := p.file.Close(); err == nil {
		err = cerr
	}
	return err
}

// Load32 reads the word at offset.
func (p *SharedPage) Load32(offset int) uint32 { return atomic.LoadUint32(p.word32(offset)) }

// Store32 writes the word at offset.
func (p *SharedPage) Store32(offset int, v uint32) { atomic.StoreUint32(p.word32(offset), v) }

// Load64 reads the double word at offset.
func (p *SharedPage) Load64(offset int) uint64 { return atomic.LoadUint64(p.word64(offset)) }

// Store64 writes the double word at offset.
func (p *SharedPage) Store64(offset int, v uint64) { atomic.StoreUint64(p.word64(offset), v) }

// Add64 adds to the double word at offset and returns the sum.
func (p *SharedPage) Add64(offset int, n uint64) uint64 {
	return atomic.AddUint64(p.word64(offset), n)
}

// Bytes is the whole page, for parts that one side writes before the other
// looks; it must not be used after Close.
func (p *SharedPage) Bytes() []byte { return p.mem }

// word32 points into the mapping. The pointer is safe: the bounds and the
// alignment are checked here, and the mapping is not memory that Go moves.
func (p *SharedPage) word32(offset int) *uint32 {
	p.check(offset, 4)
	return (*uint32)(unsafe.Pointer(&p.mem[offset]))
}

func (p *SharedPage) word64(offset int) *uint64 {
	p.check(offset, 8)
	return (*uint64)(unsafe.Pointer(&p.mem[offset]))
}

func (p *SharedPage) check(offset, size int) {
	if offset < 0 || offset%size != 0 || offset+size > len(p.mem) {
		panic(fmt.Sprintf("shared page %s: offset %d of a %d-byte word is outside or not aligned", p.file.Name(), offset, size))
	}
}
