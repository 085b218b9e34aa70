/*
 * cri-mini-init, the init and exec roles: an interpreter of plans.
 *
 * The constructor at the end of this file runs before the Go runtime starts. It maps the plan, checks all of
 * it, carries out the ops one after the other, and execs the user's program as the last of them. What each op
 * means is in docs/ops.md, which the op table in runtime/plan generates together with ops.h.
 *
 * How to read it: the file goes from the plan (decoding), over descriptors, paths and mounts, to what an op
 * does to the process itself; the switch over all ops and the start are at the end.
 *
 * Rules that hold throughout:
 *  - nothing is parsed but the plan; no policy is decided here; nothing is allocated;
 *  - one thread, so that user, PID and time namespaces can be joined;
 *  - an op returns 0, or -1 with errno; the first failure ends the process, and (op, errno) is what the
 *    parent reads in the shared progress page. There is nothing to undo: what was made dies with us;
 *  - a path of the image is never used by name twice: it is resolved once, inside the root, to a descriptor;
 *  - every descriptor is close-on-exec from the first moment on (CVE-2024-21626);
 *  - calls newer than Debian 12's glibc go by syscall(2).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/capability.h>
#include <linux/close_range.h>
#include <linux/filter.h>
#include <linux/keyctl.h>
#include <linux/magic.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <linux/sched.h>
#include <linux/seccomp.h>

#include "ops.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the plan's encoding is little-endian"
#endif

enum {
	EXIT_FAILED = 1,     /* an op failed: the progress page says which */
	EXIT_MALFORMED = 70, /* the plan was refused before anything was done */
	CHUNK = 128,         /* descriptors per message of a barrier; the kernel takes 253 */
	RETRIES = 1000,      /* of a look-up that raced with a rename (openat2(2), EAGAIN) */
	MAX_LINKS = 40,      /* dangling symbolic links in one target, as the kernel has it */
	DIR_MODE = 0755,     /* of mount points that are missing in the image */
	FILE_MODE = 0644,
	DETACH = 2, /* MNT_DETACH: sys/mount.h clashes with linux/mount.h */
};

/* ---- The progress page (runtime/plan/progress.go) ---- */

struct progress {
	uint32_t magic, op, error, pid, bad;
	uint32_t status; /* wait status of the hook that failed */
	uint32_t unrun;  /* errno of a hook that could not be executed; from its child to us */
};

static struct progress *progress;

static void report(uint32_t *field, uint32_t value)
{
	__atomic_store_n(field, value, __ATOMIC_SEQ_CST);
}

/* ---- The plan (runtime/plan/encode.go) ---- */

struct op {
	uint32_t index; /* place in the whole plan; here are only the ops that init sees */
	uint16_t kind;
	uint8_t side, unused;
	int32_t slot[2];
	uint32_t str[4]; /* offsets; 0 is the empty string */
	struct { uint32_t off, count; } list[3];
	struct { uint32_t off, len; } blob;
	uint64_t num[6];
};
_Static_assert(sizeof(struct op) == PLAN_OP, "struct op is the encoding");

static struct {
	const char *base;
	uint32_t size, ops, slots;
	int has_mask;
} plan;

static struct op op_at(uint32_t i)
{
	struct op op;

	memcpy(&op, plan.base + PLAN_HEADER + (size_t)i * PLAN_OP, sizeof op);
	return op;
}

/* Gives the offset behind the string at off, or 0 if no string can be there. The plan's last byte is NUL. */
static uint32_t after_string(uint32_t off)
{
	if (off < PLAN_HEADER || off >= plan.size)
		return 0;
	const char *nul = memchr(plan.base + off, 0, plan.size - off);
	return (uint32_t)(nul - plan.base) + 1;
}

static int op_is_sound(const struct op *op)
{
	if (op->kind == 0 || op->kind >= OP_KINDS)
		return 0;
	if (!(op->side == SIDE_INIT && op_sides[op->kind] & 1) && !(op->side == SIDE_BOTH && op_sides[op->kind] & 2))
		return 0;
	for (int i = 0; i < 2; i++)
		if (op->slot[i] < -1 || op->slot[i] >= (int32_t)plan.slots)
			return 0;
	for (int i = 0; i < 4; i++)
		if (op->str[i] && !after_string(op->str[i]))
			return 0;
	uint32_t total = 0;
	for (int i = 0; i < 3; i++) {
		uint32_t off = op->list[i].off, count = op->list[i].count;
		if (count > MAX_STRINGS || (total += count + 1) > MAX_STRINGS)
			return 0;
		for (; count; count--)
			if (!(off = after_string(off)))
				return 0;
	}
	if ((uint64_t)op->blob.off + op->blob.len > plan.size)
		return 0;
	return op->blob.len == 0 || op->blob.off >= PLAN_HEADER;
}

/*
 * Accepts exactly what plan.Decode accepts, so that no op can make us read outside the plan. Returns -1 when
 * the plan is sound, else the place of the bad op, or UINT32_MAX for the header.
 */
static int64_t find_bad_op(void)
{
	uint32_t header[5];

	if (plan.size < PLAN_HEADER + 1 || plan.size > MAX_BYTES)
		return UINT32_MAX;
	memcpy(header, plan.base, sizeof header);
	if (header[0] != PLAN_MAGIC || header[1] != PLAN_VERSION || header[4] != plan.size)
		return UINT32_MAX;
	plan.ops = header[2];
	plan.slots = header[3];
	if (plan.ops > MAX_OPS || plan.slots > MAX_SLOTS || plan.slots <= SLOT_SYNC || plan.base[plan.size - 1])
		return UINT32_MAX;
	if (PLAN_HEADER + (uint64_t)plan.ops * PLAN_OP >= plan.size)
		return UINT32_MAX;
	for (uint32_t i = 0; i < plan.ops; i++) {
		struct op op = op_at(i);
		if (!op_is_sound(&op))
			return i;
		plan.has_mask |= op.kind == OP_MASK;
	}
	return -1;
}

static const char *str(const struct op *op, int i)
{
	return op->str[i] ? plan.base + op->str[i] : "";
}

static const char *blob(const struct op *op)
{
	return plan.base + op->blob.off;
}

/* The vectors of one op: each list with its NULL. An op has at most MAX_STRINGS of both. */
static char *vectors[MAX_STRINGS];
static size_t vectors_used;

static char **vector(const struct op *op, int i)
{
	char **v = vectors + vectors_used;
	uint32_t off = op->list[i].off, n = op->list[i].count;

	for (uint32_t j = 0; j < n; j++) {
		v[j] = (char *)plan.base + off; /* nobody writes: execve(2) takes char * for history's sake */
		off = after_string(off);
	}
	v[n] = NULL;
	vectors_used += n + 1;
	return v;
}

/* ---- Small things ---- */

static int fail(int error)
{
	errno = error;
	return -1;
}

static void close_fd(int *fd)
{
	int error = errno;

	if (*fd >= 0)
		close(*fd);
	errno = error;
}
#define AUTOCLOSE __attribute__((cleanup(close_fd)))

/*
 * Nobody may look into us through /proc or ptrace: we hold host descriptors inside the container's namespaces
 * (CVE-2016-9962). A change of credentials resets the flag to fs.suid_dumpable, so it is set again after each.
 */
static int hide(void)
{
	return prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
}

static int sys_openat2(int dir, const char *path, uint64_t flags, uint64_t resolve)
{
	struct open_how how = {.flags = flags | O_CLOEXEC, .resolve = resolve};
	int fd = -1;

	for (int i = 0; i < RETRIES; i++) {
		fd = (int)syscall(SYS_openat2, dir, path, &how, sizeof how);
		if (fd >= 0 || errno != EAGAIN)
			break;
	}
	return fd;
}

static int sys_open_tree(int dir, const char *path, unsigned flags)
{
	return (int)syscall(SYS_open_tree, dir, path, flags | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
}

static int sys_move_mount(int tree, int dir, const char *path, unsigned flags)
{
	return (int)syscall(SYS_move_mount, tree, "", dir, path, flags | MOVE_MOUNT_F_EMPTY_PATH);
}

static int sys_fsconfig(int fs, unsigned command, const char *key, const char *value)
{
	return (int)syscall(SYS_fsconfig, fs, command, key, value, 0);
}

static int sys_mount_setattr(int fd, unsigned flags, struct mount_attr *attr)
{
	return (int)syscall(SYS_mount_setattr, fd, "", flags | AT_EMPTY_PATH, attr, sizeof *attr);
}

/* ---- Slots: slot n is descriptor FIRST_FD+n ---- */

static int slot_fd(int32_t slot)
{
	return slot < 0 ? -1 : FIRST_FD + slot; /* -1 makes whatever uses it fail with EBADF */
}

/* Moves a descriptor of ours into a slot. */
static int fill_slot(int32_t slot, int fd)
{
	AUTOCLOSE int from = fd;

	if (from < 0)
		return -1;
	return (int)syscall(SYS_dup3, from, slot_fd(slot), O_CLOEXEC) < 0 ? -1 : 0;
}

/*
 * Marks everything that we were started with close-on-exec, the sync socket first of all: its end of file
 * tells the parent that exec has happened. Then takes every number below the last slot's that is still free,
 * so that no descriptor that we open ourselves can lie where a later op puts another. What it takes them with
 * is an epoll descriptor, because nothing can be done with one by mistake: it cannot be read, written, joined
 * or mounted. A standard stream that was closed is closed again by exec.
 */
static int take_slots(void)
{
	if (syscall(SYS_close_range, FIRST_FD, ~0U, CLOSE_RANGE_CLOEXEC) < 0)
		return -1;
	for (int fd = 0; fd < FIRST_FD + (int)plan.slots; fd++)
		if (fcntl(fd, F_GETFD) < 0 && epoll_create1(EPOLL_CLOEXEC) != fd)
			return -1; /* ours is the lowest free number, so fd */
	return 0;
}

/* An optional source that was missing leaves its slot without a mount: every tree is an O_PATH descriptor. */
static int slot_is_empty(int32_t slot)
{
	int flags = fcntl(slot_fd(slot), F_GETFL);

	return flags < 0 || !(flags & O_PATH);
}

/* ---- Barriers ---- */

/*
 * A message is {index of the op, status} and up to CHUNK descriptors. More descriptors take more messages,
 * all with the same index. The socket is a SOCK_SEQPACKET pair.
 */
struct message {
	uint32_t index, status;
};

union control {
	char space[CMSG_SPACE(CHUNK * sizeof(int))];
	struct cmsghdr align;
};

static int send_slots(uint32_t index, int32_t first, uint32_t count)
{
	struct message m = {.index = index};
	struct iovec iov = {&m, sizeof m};
	union control control;
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t n;

	if (count > 0) {
		memset(&control, 0, sizeof control);
		msg.msg_control = control.space;
		msg.msg_controllen = CMSG_SPACE(count * sizeof(int));
		struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(count * sizeof(int));
		for (uint32_t i = 0; i < count; i++) {
			int fd = slot_fd(first + (int32_t)i);
			memcpy(CMSG_DATA(c) + i * sizeof fd, &fd, sizeof fd);
		}
	}
	do
		n = sendmsg(slot_fd(SLOT_SYNC), &msg, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -1 : n == sizeof m ? 0 : fail(EPROTO);
}

static int receive_slots(uint32_t index, int32_t first, uint32_t count)
{
	struct message m;
	struct iovec iov = {&m, sizeof m};
	union control control;
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.space, .msg_controllen = sizeof control};
	uint32_t got = 0;
	ssize_t n;

	do
		n = recvmsg(slot_fd(SLOT_SYNC), &msg, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -1;
	if (n == 0 || (n == sizeof m && m.status != 0))
		return fail(ECANCELED); /* the parent has died or given up */
	if (n != sizeof m || m.index != index)
		return fail(EPROTO);
	if (msg.msg_flags & MSG_CTRUNC)
		return fail(EMFILE);
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t at = 0; at + sizeof(int) <= c->cmsg_len - CMSG_LEN(0); at += sizeof(int), got++) {
			int fd;
			memcpy(&fd, CMSG_DATA(c) + at, sizeof fd);
			if (got >= count)
				return fail(EPROTO);
			if (fill_slot(first + (int32_t)got, fd))
				return -1;
		}
	}
	return got == count ? 0 : fail(EPROTO);
}

static int op_barrier(const struct op *op)
{
	int64_t first = (int64_t)op->num[1];
	uint64_t count = op->num[2];

	if (count > 0 && (first < 0 || first > plan.slots || count > plan.slots - (uint64_t)first))
		return fail(EINVAL);
	do {
		uint32_t n = count < CHUNK ? (uint32_t)count : CHUNK;
		int rc = op->num[0] == PARENT_WAITS ? send_slots(op->index, (int32_t)first, n)
						    : receive_slots(op->index, (int32_t)first, n);
		if (rc)
			return -1;
		first += n;
		count -= n;
	} while (count > 0);
	return 0;
}

/* ---- The kernel's own files ---- */

/*
 * Opens a file of /proc for writing. A fake /proc, or another file bound over the one that is meant, would
 * turn a harmless write into an attack or drop a label in silence (CVE-2019-16884, CVE-2025-52881): so this is
 * the procfs itself, at its root, and nothing is mounted on the way.
 */
static int open_proc(const char *dir, const char *file, int flags)
{
	AUTOCLOSE int proc = open("/proc", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	AUTOCLOSE int base = -1;
	struct statfs fs;
	struct stat st;

	if (proc < 0 || fstatfs(proc, &fs) || fstat(proc, &st))
		return -1;
	if (fs.f_type != PROC_SUPER_MAGIC || st.st_ino != 1)
		return fail(EXDEV);
	base = sys_openat2(proc, dir, O_PATH | O_DIRECTORY, RESOLVE_BENEATH | RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS);
	if (base < 0)
		return -1;
	return sys_openat2(base, file, (uint64_t)flags, RESOLVE_BENEATH | RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS);
}

static int write_text(int fd, const char *text)
{
	ssize_t n = write(fd, text, strlen(text));

	return n < 0 ? -1 : (size_t)n == strlen(text) ? 0 : fail(EIO);
}

static int write_proc(const char *dir, const char *file, const char *text)
{
	AUTOCLOSE int fd = open_proc(dir, file, O_WRONLY);

	return fd < 0 ? -1 : write_text(fd, text);
}

static int op_oom_score_adj(int64_t value)
{
	char digits[24], *p = digits + sizeof digits;
	uint64_t v = value < 0 ? -(uint64_t)value : (uint64_t)value;

	*--p = 0;
	do
		*--p = (char)('0' + v % 10);
	while (v /= 10);
	if (value < 0)
		*--p = '-';
	return write_proc("self", "oom_score_adj", p);
}

/* ---- Paths inside the root ---- */

static int attached_root = -1; /* the slot's descriptor that AttachRoot filled */

/* The descriptor that an op's targets lie below. Without a slot it is /, as it is after a join. */
static int root_of(int32_t slot)
{
	static int slash = -1;

	if (slot >= 0)
		return slot_fd(slot);
	close_fd(&slash);
	return slash = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
}

/*
 * Opens a path as the container will see it: symbolic links, absolute ones too, and .. cannot leave the root
 * (openat2(2)). It crosses mounts, so each op sees what earlier ones have mounted. Magic links, such as
 * /proc/PID/root, are refused.
 */
static int open_in_root(int root, const char *path, uint64_t flags)
{
	return sys_openat2(root, *path ? path : ".", O_PATH | flags, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS);
}

/* Makes one name below a descriptor, or finds it there; a symbolic link is ENOTDIR or ELOOP. */
static int make_name(int dir, const char *name, uint64_t what, mode_t mode)
{
	int rc = what == CREATE_DIR ? mkdirat(dir, name, mode) : mknodat(dir, name, S_IFREG | mode, 0);

	if (rc && errno != EEXIST)
		return -1;
	if (what == CREATE_DIR)
		return openat(dir, name, O_PATH | O_NOFOLLOW | O_DIRECTORY | O_CLOEXEC);
	return sys_openat2(dir, name, O_PATH, RESOLVE_NO_SYMLINKS);
}

/*
 * Where the name at rest is a symbolic link that leads to nothing, writes the path that it stands for into
 * path, so that the caller looks that up from the root again: /var/run/x, where /var/run points to a /run
 * that the image lacks, makes /run/x. Returns 1 when it did.
 */
static int follow_dangling(int dir, char *path, char *rest, const char *after)
{
	static char joined[2 * PATH_MAX];
	char link[PATH_MAX];
	ssize_t n = readlinkat(dir, rest, link, sizeof link - 1);

	if (n < 0)
		return 0;
	link[n] = 0;
	char *p = joined;
	if (link[0] != '/')
		p = mempcpy(p, path, (size_t)(rest - path));
	p = mempcpy(p, link, (size_t)n);
	if (*after) {
		*p++ = '/';
		p = stpcpy(p, after);
	}
	*p = 0;
	if (p - joined >= PATH_MAX)
		return fail(ENAMETOOLONG);
	memcpy(path, joined, (size_t)(p - joined) + 1);
	return 1;
}

/* Splits path at the end of the part that exists; that part's directory is opened. */
static int open_existing(int root, char *path, char **rest)
{
	char *p = path + strlen(path);

	for (;;) {
		while (p > path && p[-1] != '/')
			p--;
		char c = *p;
		*p = 0;
		int dir = open_in_root(root, path, O_DIRECTORY);
		*p = c;
		if (dir >= 0 || errno != ENOENT || p == path) {
			*rest = p;
			return dir;
		}
		p--;
	}
}

/*
 * Makes what is missing of path, one name at a time below a descriptor that cannot be swapped for a link
 * (CVE-2024-45310). Returns a descriptor; -1; or -2 if path was rewritten along a dangling link.
 */
static int make_missing(int root, char *path, uint64_t what, mode_t mode)
{
	char *rest;
	AUTOCLOSE int dir = open_existing(root, path, &rest);

	if (dir < 0)
		return -1;
	for (;;) {
		char *end = strchrnul(rest, '/'), *after = end + strspn(end, "/");
		int last = !*after;
		if (rest[0] == '.' && (end - rest == 1 || (rest[1] == '.' && end - rest == 2)))
			return fail(ENOENT); /* . and .. of what does not exist */
		*end = 0;
		int fd = make_name(dir, rest, last ? what : CREATE_DIR, last ? mode : DIR_MODE);
		if (fd < 0) {
			int error = errno;
			int followed = error == ENOTDIR || error == ELOOP ? follow_dangling(dir, path, rest, after) : 0;
			return followed == 1 ? -2 : followed < 0 ? -1 : fail(error);
		}
		if (last)
			return fd;
		*end = '/';
		close_fd(&dir);
		dir = fd;
		rest = after;
	}
}

/* Opens a target inside the root, and makes it first if it is missing and create says as what. */
static int open_target(int root, const char *target, uint64_t create, uint64_t flags, mode_t mode)
{
	static char path[PATH_MAX];
	size_t len = strlen(target);

	while (len > 1 && target[len - 1] == '/')
		len--;
	if (len >= sizeof path)
		return fail(ENAMETOOLONG);
	memcpy(path, target, len);
	path[len] = 0;
	for (int links = 0; links < MAX_LINKS; links++) {
		int fd = open_in_root(root, path, flags);
		if (fd >= 0 || errno != ENOENT || !create)
			return fd;
		fd = make_missing(root, path, create, mode);
		if (fd != -2)
			return fd;
	}
	return fail(ELOOP);
}

/*
 * Opens the target of a mount. Below a procfs no link may lead: the compiler has looked at the names that may be
 * covered there, and a link in the image or in a volume would bring another, behind which a label or a sysctl is
 * written to nothing, or a mask put aside (CVE-2019-16884, CVE-2019-19921, CVE-2025-31133, CVE-2025-52881).
 */
static int open_mount_target(int root, const char *target, uint64_t create, uint64_t flags, mode_t mode)
{
	AUTOCLOSE int fd = open_target(root, target, create, flags, mode);
	struct statfs fs;

	if (fd < 0 || fstatfs(fd, &fs))
		return -1;
	if (fs.f_type != PROC_SUPER_MAGIC)
		return fcntl(fd, F_DUPFD_CLOEXEC, 0);
	return sys_openat2(root, *target ? target : ".", O_PATH | flags, RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS);
}

/* Opens the directory of path, made if missing, and gives the last name. */
static int open_parent(int root, const char *path, const char **name)
{
	static char parent[PATH_MAX];
	const char *slash = strrchr(path, '/');
	size_t len = slash ? (size_t)(slash - path) : 0;

	*name = slash ? slash + 1 : path;
	if (!**name || !strcmp(*name, ".") || !strcmp(*name, ".."))
		return fail(EINVAL);
	if (len >= sizeof parent)
		return fail(ENAMETOOLONG);
	memcpy(parent, path, len);
	parent[len] = 0;
	return open_target(root, parent, CREATE_DIR, O_DIRECTORY, DIR_MODE);
}

static int op_mkdir(const struct op *op)
{
	AUTOCLOSE int fd = open_target(root_of(op->slot[0]), str(op, 0), CREATE_DIR, O_DIRECTORY, (mode_t)op->num[0] & 07777);

	return fd < 0 ? -1 : 0;
}

static int op_mknod(const struct op *op)
{
	const char *name;
	AUTOCLOSE int dir = open_parent(root_of(op->slot[0]), str(op, 0), &name);
	mode_t mode = (mode_t)op->num[0];
	dev_t dev = makedev((unsigned)(op->num[1] >> 32), (unsigned)op->num[1]);
	struct stat st;

	if (dir < 0)
		return -1;
	if (mknodat(dir, name, mode, dev) == 0)
		return fchownat(dir, name, (uid_t)op->num[2], (gid_t)op->num[3], AT_SYMLINK_NOFOLLOW);
	if (errno != EEXIST || fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW))
		return -1;
	return (st.st_mode & S_IFMT) == (mode & S_IFMT) && st.st_rdev == dev ? 0 : fail(EEXIST);
}

static int op_symlink(const struct op *op)
{
	const char *name;
	AUTOCLOSE int dir = open_parent(root_of(op->slot[0]), str(op, 1), &name);

	if (dir < 0)
		return -1;
	return symlinkat(str(op, 0), dir, name) && errno != EEXIST ? -1 : 0;
}

/* ---- Mounts ---- */

static int set_attr(int fd, uint64_t set, uint64_t clear, int recursive, uint64_t propagation)
{
	struct mount_attr attr = {.attr_set = set, .attr_clr = clear};
	struct mount_attr prop = {.propagation = propagation & ~(uint64_t)MS_REC};

	if ((set | clear) & MOUNT_ATTR__ATIME)
		attr.attr_clr |= MOUNT_ATTR__ATIME; /* one field of several bits (mount_setattr(2)) */
	if ((set | clear) && sys_mount_setattr(fd, recursive ? AT_RECURSIVE : 0, &attr))
		return -1;
	if (prop.propagation && sys_mount_setattr(fd, propagation & MS_REC ? AT_RECURSIVE : 0, &prop))
		return -1;
	return 0;
}

static int attach(int tree, int target)
{
	struct stat what, where;

	if (sys_move_mount(tree, target, "", MOVE_MOUNT_T_EMPTY_PATH) == 0)
		return 0;
	/* EINVAL has many causes: say the one that users make, a directory over a file or the reverse. */
	if (errno == EINVAL && !fstat(tree, &what) && !fstat(target, &where) && S_ISDIR(what.st_mode) != S_ISDIR(where.st_mode))
		return fail(ENOTDIR);
	return -1;
}

/* Makes a file system, detached. Options alternate between key and value; an empty value makes a flag. */
static int make_fs(const char *type, const char *source, char **options, uint64_t attrs)
{
	AUTOCLOSE int fs = (int)syscall(SYS_fsopen, type, FSOPEN_CLOEXEC);

	if (fs < 0 || (*source && sys_fsconfig(fs, FSCONFIG_SET_STRING, "source", source)))
		return -1;
	for (; *options; options += 2) {
		if (!options[1])
			return fail(EINVAL);
		if (*options[1] ? sys_fsconfig(fs, FSCONFIG_SET_STRING, options[0], options[1])
				: sys_fsconfig(fs, FSCONFIG_SET_FLAG, options[0], NULL))
			return -1;
	}
	if (sys_fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL))
		return -1;
	return (int)syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC, (unsigned)attrs);
}

/* Gives the root of a new file system the mode of the directory that it will cover. */
static int copy_mode(int target, int tree)
{
	AUTOCLOSE int dir = openat(tree, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct stat st;

	return dir < 0 || fstat(target, &st) ? -1 : fchmod(dir, st.st_mode & 07777);
}

/*
 * The file systems at /proc and /sys. What is hidden there is hidden in these, and not in what a link shows that
 * somebody has put into their place meanwhile (CVE-2019-19921).
 */
static const char *const kernel_dirs[] = {"/proc", "/sys"};
static int kernel_trees[] = {-1, -1};

/* Keeps the descriptor of a mount there: the caller's own, which it gives away, or a copy of one in a slot. */
static void keep_kernel_tree(const char *target, int *own, int slot)
{
	for (int i = 0; i < 2; i++)
		if (!strcmp(target, kernel_dirs[i])) {
			close_fd(&kernel_trees[i]);
			kernel_trees[i] = *own >= 0 ? *own : fcntl(slot, F_DUPFD_CLOEXEC, 0);
			*own = -1;
		}
}

/* Opens a path that is to be covered. */
static int open_covered(int32_t root, const char *path)
{
	for (int i = 0; i < 2; i++) {
		size_t n = strlen(kernel_dirs[i]);
		if (kernel_trees[i] >= 0 && !strncmp(path, kernel_dirs[i], n) && path[n] == '/')
			return open_in_root(kernel_trees[i], path + n + 1, 0);
	}
	return open_in_root(root_of(root), path, 0);
}

static int op_mount_fs(const struct op *op)
{
	const char *type = str(op, 0);
	int kernel = !strcmp(type, "proc") || !strcmp(type, "sysfs");
	AUTOCLOSE int tree = make_fs(type, str(op, 2), vector(op, 0), op->num[0]);
	AUTOCLOSE int target = -1;
	struct stat st;

	if (tree < 0 || set_attr(tree, 0, 0, 0, op->num[2]))
		return -1;
	/* A procfs or sysfs that a link moves elsewhere would escape its masks (CVE-2019-19921). */
	target = open_mount_target(root_of(op->slot[0]), str(op, 1), op->num[1], kernel ? O_NOFOLLOW : 0, DIR_MODE);
	if (target < 0)
		return -1;
	if (kernel && (fstat(target, &st) || !S_ISDIR(st.st_mode)))
		return fail(S_ISLNK(st.st_mode) ? ELOOP : ENOTDIR);
	if ((op->num[3] && copy_mode(target, tree)) || attach(tree, target))
		return -1;
	keep_kernel_tree(str(op, 1), &tree, -1);
	return 0;
}

static int clone_source(const char *source, uint64_t flags)
{
	return sys_open_tree(AT_FDCWD, source, flags & BIND_RECURSIVE ? AT_RECURSIVE : 0);
}

static int op_open_tree(const struct op *op)
{
	uint64_t flags = op->num[0];
	AUTOCLOSE int tree = clone_source(str(op, 0), flags);

	if (tree < 0)
		return flags & BIND_OPTIONAL && errno == ENOENT ? 0 : -1;
	if (op->slot[1] >= 0) {
		struct mount_attr attr = {.attr_set = MOUNT_ATTR_IDMAP, .userns_fd = (uint64_t)slot_fd(op->slot[1])};
		if (sys_mount_setattr(tree, flags & BIND_MAP_RECURSIVE ? AT_RECURSIVE : 0, &attr))
			return -1;
	}
	if (set_attr(tree, 0, 0, 0, op->num[2]))
		return -1;
	return syscall(SYS_dup3, tree, slot_fd(op->slot[0]), O_CLOEXEC) < 0 ? -1 : 0;
}

static int op_mount_bind(const struct op *op)
{
	uint64_t flags = op->num[2], create = op->num[4];
	AUTOCLOSE int cloned = -1;
	AUTOCLOSE int target = -1;
	int tree = slot_fd(op->slot[1]);
	struct stat st;

	if (tree >= 0 && flags & BIND_OPTIONAL && slot_is_empty(op->slot[1]))
		return 0;
	if (tree < 0) {
		tree = cloned = clone_source(str(op, 0), flags);
		if (tree < 0)
			return flags & BIND_OPTIONAL && errno == ENOENT ? 0 : -1;
	}
	if (set_attr(tree, op->num[0], op->num[1], 0, 0) || set_attr(tree, op->num[5] >> 32, (uint32_t)op->num[5], 1, op->num[3]))
		return -1;
	if (create == CREATE_LIKE) {
		if (fstat(tree, &st))
			return -1;
		create = S_ISDIR(st.st_mode) ? CREATE_DIR : CREATE_FILE;
	}
	target = open_mount_target(root_of(op->slot[0]), str(op, 1), create, 0, create == CREATE_FILE ? FILE_MODE : DIR_MODE);
	if (target < 0 || attach(tree, target))
		return -1;
	keep_kernel_tree(str(op, 1), &cloned, tree);
	return 0;
}

static int op_set_attr(const struct op *op)
{
	AUTOCLOSE int fd = open_in_root(root_of(op->slot[0]), str(op, 0), 0);

	return fd < 0 ? -1 : set_attr(fd, op->num[0], op->num[1], op->num[2] & BIND_RECURSIVE_ATTR, op->num[3]);
}

/*
 * What masks are made of: one mount each of /dev/null and of an empty tmpfs. The first mask attaches the mount
 * itself and each further one a clone of it: an old kernel clones only mounts that are attached, and a clone
 * costs 14 µs where another tmpfs costs 25.
 */
struct cover {
	int fd, attached;
};
static struct cover null_cover = {.fd = -1}, empty_cover = {.fd = -1};

/* Takes /dev/null while / is still the host's. The image cannot have put something else there (CVE-2025-31133). */
static int take_null(void)
{
	struct stat st;

	if (null_cover.fd >= 0)
		return 0;
	null_cover.fd = sys_open_tree(AT_FDCWD, "/dev/null", AT_SYMLINK_NOFOLLOW);
	if (null_cover.fd < 0 || fstat(null_cover.fd, &st))
		return -1;
	if (S_ISCHR(st.st_mode) && st.st_rdev == makedev(1, 3))
		return 0;
	close_fd(&null_cover.fd);
	null_cover.fd = -1;
	return fail(ENODEV);
}

static int take_empty(void)
{
	char *options[] = {"nr_blocks", "1", "nr_inodes", "1", "mode", "755", "ro", "", NULL};

	if (empty_cover.fd < 0)
		empty_cover.fd = make_fs("tmpfs", "tmpfs", options, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
	return empty_cover.fd < 0 ? -1 : 0;
}

static int cover(struct cover *with, int target)
{
	if (!with->attached) {
		int rc = attach(with->fd, target);
		with->attached = rc == 0;
		return rc;
	}
	AUTOCLOSE int clone = sys_open_tree(with->fd, "", AT_EMPTY_PATH);
	return clone < 0 ? -1 : attach(clone, target);
}

static int op_mask(const struct op *op)
{
	AUTOCLOSE int target = open_covered(op->slot[0], str(op, 0));
	struct stat st;

	if (target < 0)
		return errno == ENOENT || errno == ENOTDIR ? 0 : -1;
	if (fstat(target, &st))
		return -1;
	if (S_ISDIR(st.st_mode))
		return take_empty() ? -1 : cover(&empty_cover, target);
	return take_null() ? -1 : cover(&null_cover, target);
}

static int op_readonly(const struct op *op)
{
	AUTOCLOSE int target = open_covered(op->slot[0], str(op, 0));
	AUTOCLOSE int clone = -1;

	if (target < 0)
		return errno == ENOENT || errno == ENOTDIR ? 0 : -1;
	clone = sys_open_tree(target, "", AT_EMPTY_PATH | AT_RECURSIVE);
	if (clone < 0 || set_attr(clone, MOUNT_ATTR_RDONLY, 0, 1, 0))
		return -1;
	return attach(clone, target);
}

/* ---- The root ---- */

/* Without a tree, the root is the directory at path: it is bound onto itself, for pivot_root wants a mount. */
static int op_attach_root(const struct op *op)
{
	AUTOCLOSE int cloned = -1;
	int tree = slot_fd(op->slot[0]);
	struct stat st;

	if (plan.has_mask && take_null())
		return -1;
	if (tree < 0)
		tree = cloned = clone_source(str(op, 0), BIND_RECURSIVE);
	if (tree < 0 || fstat(tree, &st))
		return -1;
	if (!S_ISDIR(st.st_mode))
		return fail(ENOTDIR);
	if (sys_move_mount(tree, AT_FDCWD, str(op, 0), 0))
		return -1;
	/* The descriptor of the tree is that of the mount now in place: nothing is looked up again. */
	attached_root = slot_fd(op->slot[1]);
	return syscall(SYS_dup3, tree, attached_root, O_CLOEXEC) < 0 ? -1 : 0;
}

/* Where / is the initramfs it cannot be pivoted away: hide its procfs and sysfs, cover it, chroot. */
static int move_root(int root)
{
	static const char *const kernel[] = {"/proc", "/sys"};

	if (syscall(SYS_mount, NULL, "/", NULL, MS_REC | MS_SLAVE, NULL))
		return -1;
	for (int i = 0; i < 2; i++)
		if (syscall(SYS_umount2, kernel[i], DETACH) && errno != EINVAL && errno != ENOENT)
			return -1;
	if (fchdir(root) || sys_move_mount(root, AT_FDCWD, "/", 0))
		return -1;
	return chroot(".") || chdir("/") ? -1 : 0;
}

static int is_null(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && S_ISCHR(st.st_mode) && st.st_rdev == makedev(1, 3);
}

/*
 * A standard stream that is the host's /dev/null becomes the container's: it lies on a mount that the container does
 * not have, which criu could not save. A root without a /dev/null keeps the host's.
 */
static void change_null(void)
{
	AUTOCLOSE int own = open("/dev/null", O_RDWR | O_NOCTTY | O_CLOEXEC);

	for (int fd = 0; own >= 0 && is_null(own) && fd < FIRST_FD; fd++)
		if (is_null(fd))
			dup2(own, fd);
}

static int op_pivot(const struct op *op)
{
	int root = slot_fd(op->slot[0]);
	AUTOCLOSE int old = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);

	if (old < 0)
		return -1;
	if (op->num[0]) {
		if (move_root(root))
			return -1;
		change_null();
		return 0;
	}
	/* The old root comes to lie on the new one, so that no directory is needed for it (pivot_root(2)). */
	if (fchdir(root) || syscall(SYS_pivot_root, ".", "."))
		return -1;
	/* Or the host would see its mounts go. */
	if (set_attr(old, 0, 0, 0, MS_REC | MS_SLAVE))
		return -1;
	if (fchdir(old) || syscall(SYS_umount2, ".", DETACH) || chdir("/"))
		return -1;
	change_null();
	return 0;
}

/* ---- The terminal ---- */

static int is_devpts(int fd)
{
	struct statfs fs;

	return fstatfs(fd, &fs) == 0 && fs.f_type == DEVPTS_SUPER_MAGIC;
}

/* Opens a master and its slave in the devpts of the root, and in no other (CVE-2025-52565). */
static int open_terminal(int root, int *slave)
{
	int unlocked = 0;
	int master = sys_openat2(root, "/dev/pts/ptmx", O_RDWR | O_NOCTTY, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS);

	if (master < 0)
		return -1;
	if (!is_devpts(master))
		errno = EXDEV;
	else if (ioctl(master, TIOCSPTLCK, &unlocked) == 0) {
		/* The peer is had from the master, not by its name. */
		*slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
		if (*slave >= 0 && is_devpts(*slave))
			return master;
	}
	close_fd(&master);
	return -1;
}

static int bind_console(int root, int slave)
{
	AUTOCLOSE int tree = sys_open_tree(slave, "", AT_EMPTY_PATH);
	AUTOCLOSE int target = open_target(root, "/dev/console", CREATE_FILE, O_NOFOLLOW, FILE_MODE);
	struct stat st;

	if (tree < 0 || target < 0 || fstat(target, &st))
		return -1;
	return S_ISLNK(st.st_mode) ? fail(ELOOP) : attach(tree, target);
}

static int op_console(const struct op *op)
{
	struct winsize size = {.ws_col = (unsigned short)op->num[0], .ws_row = (unsigned short)op->num[1]};
	int root = attached_root >= 0 ? attached_root : root_of(-1);
	AUTOCLOSE int slave = -1;
	AUTOCLOSE int master = open_terminal(root, &slave);

	if (master < 0)
		return -1;
	if ((size.ws_col || size.ws_row) && ioctl(master, TIOCSWINSZ, &size))
		return -1;
	if (fchown(slave, (uid_t)op->num[2], (gid_t)-1))
		return -1;
	if (op->num[3] && bind_console(root, slave))
		return -1;
	if (ioctl(slave, TIOCSCTTY, 0))
		return -1;
	for (int fd = 0; fd < FIRST_FD; fd++)
		if (dup2(slave, fd) < 0)
			return -1;
	return syscall(SYS_dup3, master, slot_fd(op->slot[0]), O_CLOEXEC) < 0 ? -1 : 0;
}

/* ---- Namespaces and processes ---- */

static int op_join(const struct op *op)
{
	if (syscall(SYS_setns, slot_fd(op->slot[0]), (int)op->num[0]))
		return -1;
	return hide();
}

/*
 * A parent without privileges reaches our files in /proc only while we are dumpable. All that can be seen then is what
 * the same user gave us; map_root, which comes as soon as the maps are written, hides us again.
 */
static int op_unshare(const struct op *op)
{
	if (syscall(SYS_unshare, (int)op->num[0]))
		return -1;
	return op->num[1] ? prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) : hide();
}

static int op_loopback(void)
{
	AUTOCLOSE int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ifreq lo = {.ifr_name = "lo"};

	if (fd < 0 || ioctl(fd, SIOCGIFFLAGS, &lo))
		return -1;
	lo.ifr_flags |= IFF_UP;
	return ioctl(fd, SIOCSIFFLAGS, &lo);
}

static int groups_denied; /* this user namespace forbids setgroups(2) (user_namespaces(7)) */

static int set_ids(uid_t uid, gid_t gid, size_t ngroups, const void *groups)
{
	if (!(groups_denied && ngroups == 0) && syscall(SYS_setgroups, ngroups, groups))
		return -1;
	if (syscall(SYS_setresgid, gid, gid, gid) || syscall(SYS_setresuid, uid, uid, uid))
		return -1;
	return hide();
}

static int op_map_root(void)
{
	char word[4] = "";
	AUTOCLOSE int fd = open_proc("self", "setgroups", O_RDONLY);

	if (fd >= 0 && read(fd, word, sizeof word) == sizeof word)
		groups_denied = !memcmp(word, "deny", sizeof word);
	return set_ids(0, 0, 0, NULL);
}

/*
 * The child has our parent as its own, and our progress page; the memory that it goes on with is a copy. The
 * kernel stores its pid before it runs, so whoever meets it at a barrier finds the pid there.
 */
static int op_fork(void)
{
	long pid = syscall(SYS_clone, CLONE_PARENT | CLONE_PARENT_SETTID | SIGCHLD, 0, &progress->pid, 0, 0);

	if (pid < 0)
		return -1;
	if (pid > 0)
		_exit(0);
	return hide();
}

static mode_t umask_at_exec;
static int finished;

/*
 * What exec must find done. It is done before a filter is loaded, if there is one: a profile need not allow
 * what only we do. All our descriptors are close-on-exec already; this is the belt to those braces.
 */
static int finish(void)
{
	if (finished)
		return 0;
	finished = 1;
	umask(umask_at_exec);
	return (int)syscall(SYS_close_range, FIRST_FD, ~0U, CLOSE_RANGE_CLOEXEC);
}

/* An ignored signal stays ignored over exec and a blocked one blocked: undo what our parent may have done. */
static int reset_signals(void)
{
	static const struct { void *handler; unsigned long flags; void *restorer; uint64_t mask; } deflt;
	uint64_t none = 0;

	for (int sig = 1; sig <= 64; sig++)
		if (sig != SIGKILL && sig != SIGSTOP && syscall(SYS_rt_sigaction, sig, &deflt, NULL, sizeof none))
			return -1;
	return (int)syscall(SYS_rt_sigprocmask, SIG_SETMASK, &none, NULL, sizeof none);
}

/* Waits for a hook: 0, or -1 with ETIME (killed), ECHILD (its status is in the page), or why it did not run. */
static int wait_hook(pid_t pid, int pidfd, uint64_t seconds)
{
	struct pollfd p = {.fd = pidfd, .events = POLLIN};
	int limit = seconds == 0 ? -1 : seconds > INT_MAX / 1000 ? INT_MAX : (int)seconds * 1000;
	int ready, status;

	do
		ready = poll(&p, 1, limit); /* no handler is installed, so EINTR is a stop and continue */
	while (ready < 0 && errno == EINTR);
	if (ready <= 0)
		kill(pid, SIGKILL);
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -1;
	if (ready == 0)
		return fail(ETIME);
	if (progress->unrun)
		return fail((int)progress->unrun);
	report(&progress->status, (uint32_t)status);
	return status ? fail(ECHILD) : 0;
}

static int op_hook(const struct op *op)
{
	char *path = (char *)str(op, 1), *only_path[] = {path, NULL};
	char **argv = vector(op, 0), **envp = vector(op, 1);
	int in = slot_fd(op->slot[0]);
	AUTOCLOSE int pidfd = -1;

	if (in >= 0 && lseek(in, 0, SEEK_SET) < 0) /* the hook before this one has read it */
		return -1;
	report(&progress->unrun, 0);
	long pid = syscall(SYS_clone, CLONE_PIDFD | SIGCHLD, 0, &pidfd, 0, 0);
	if (pid < 0)
		return -1;
	if (pid == 0) {
		umask(umask_at_exec);
		/* Every other descriptor of ours closes at exec. Hooks are used to be in the root file system, pivoted or not. */
		if ((in < 0 || dup2(in, 0) == 0) && (attached_root < 0 || fchdir(attached_root) == 0))
			execve(path, *argv ? argv : only_path, envp);
		report(&progress->unrun, (uint32_t)errno);
		_exit(127);
	}
	return wait_hook((pid_t)pid, pidfd, op->num[0]);
}

/* Waits for the byte of start. Poll comes first: a read end without a writer yet would look like its end. */
static int op_gate(const struct op *op)
{
	struct pollfd p = {.fd = slot_fd(op->slot[0]), .events = POLLIN};
	char byte;

	for (;;) {
		if (poll(&p, 1, -1) < 0 && errno != EINTR)
			return -1;
		if (p.revents & POLLNVAL)
			return fail(EBADF);
		ssize_t n = read(p.fd, &byte, 1);
		if (n == 1)
			return 0;
		if (n == 0)
			return fail(ECANCELED); /* the writer has gone without a word */
		if (errno != EAGAIN && errno != EINTR)
			return -1;
	}
}

/* ---- Rights and limits ---- */

static int op_rlimit(const struct op *op)
{
	uint64_t limit[2] = {op->num[1], op->num[2]}; /* struct rlimit64; all ones is no limit */

	return (int)syscall(SYS_prlimit64, 0, (unsigned)op->num[0], limit, NULL);
}

static int op_scheduler(const struct op *op)
{
	struct {
		uint32_t size, policy;
		uint64_t flags;
		int32_t nice;
		uint32_t priority;
		uint64_t runtime, deadline, period;
	} attr = { /* struct sched_attr, first version */
		.size = 48,
		.policy = (uint32_t)op->num[0],
		.flags = op->num[1],
		.nice = (int32_t)(uint32_t)op->num[2],
		.priority = (uint32_t)(op->num[2] >> 32),
		.runtime = op->num[3],
		.deadline = op->num[4],
		.period = op->num[5],
	};

	return (int)syscall(SYS_sched_setattr, 0, &attr, 0);
}

/*
 * What the kernel gives a new session keyring (all to who possesses it; view, read and link to its owner), and search for
 * its owner: an exec, which possesses nothing yet, finds a ring by its name only if it may search it (keyctl(2)).
 */
#define RING_PERM (0x3f000000 | 0x00130000 | 0x00080000)

static int op_keyring(const char *name)
{
	long ring = syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, *name ? name : NULL);

	if (ring >= 0) {
		(void)syscall(SYS_keyctl, KEYCTL_SETPERM, ring, RING_PERM); /* refused on one that the container has changed */
		return 0;
	}
	return errno == ENOSYS || errno == EDQUOT ? 0 : -1;
}

static int op_chdir(const char *path)
{
	char cwd[PATH_MAX + 1];

	if (chdir(path))
		return -1;
	/* Outside of the root the kernel answers "(unreachable)/…": /proc/self/fd/N is such a place (CVE-2024-21626). */
	if (syscall(SYS_getcwd, cwd, sizeof cwd) < 0)
		return -1;
	return cwd[0] == '/' ? 0 : fail(ENOENT);
}

static int op_bounding(uint64_t keep)
{
	for (int cap = 0; cap < 64; cap++)
		if (!(keep >> cap & 1) && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0)) {
			if (errno == EINVAL) /* beyond the kernel's last one */
				break;
			return -1;
		}
	return prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0);
}

static int op_user(const struct op *op)
{
	uint64_t ngroups = op->num[3];

	if (ngroups > op->blob.len / sizeof(gid_t))
		return fail(EINVAL);
	if (op->num[4])
		umask_at_exec = (mode_t)op->num[2] & 0777;
	return set_ids((uid_t)op->num[0], (gid_t)op->num[1], (size_t)ngroups, blob(op));
}

static int op_caps(const struct op *op)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2];
	uint64_t ambient = op->num[3];

	for (int i = 0; i < 2; i++) {
		data[i].effective = (uint32_t)(op->num[0] >> 32 * i);
		data[i].permitted = (uint32_t)(op->num[1] >> 32 * i);
		data[i].inheritable = (uint32_t)(op->num[2] >> 32 * i);
	}
	if (syscall(SYS_capset, &header, data) || prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0))
		return -1;
	for (int cap = 0; cap < 64; cap++)
		if (ambient >> cap & 1 && prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0))
			return -1;
	return hide();
}

static int op_seccomp(const struct op *op)
{
	struct sock_fprog prog = {.len = (unsigned short)(op->blob.len / sizeof(struct sock_filter)), .filter = (void *)blob(op)};

	if (op->blob.len % sizeof(struct sock_filter) || op->blob.len / sizeof(struct sock_filter) > BPF_MAXINSNS)
		return fail(EINVAL);
	if (finish())
		return -1;
	long fd = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, (unsigned)op->num[0], &prog);
	if (fd < 0)
		return -1;
	return op->slot[0] < 0 ? 0 : fill_slot(op->slot[0], (int)fd);
}

/* ---- The end ---- */

/*
 * Puts the caller's descriptors, which came in the last slots, down to 3 and following. They go over the plan,
 * the progress page and the sync socket: the first two are mapped, the last must not close before exec does.
 */
static int lower_preserved(uint64_t n)
{
	if (n > plan.slots - (SLOT_SYNC + 1))
		return fail(EINVAL);
	if (n > SLOT_SYNC && fcntl(slot_fd(SLOT_SYNC), F_DUPFD_CLOEXEC, FIRST_FD + (int)plan.slots) < 0)
		return -1;
	for (int32_t i = 0; i < (int32_t)n; i++)
		if (dup2(slot_fd((int32_t)(plan.slots - n) + i), FIRST_FD + i) < 0)
			return -1;
	return 0;
}

/* As exec will find it, but for the rights of another user. */
static int op_find_program(const struct op *op)
{
	char **candidates = vector(op, 0);
	int denied = 0;
	struct stat st;

	for (; *candidates; candidates++) {
		if (stat(*candidates, &st) == 0) {
			if (S_ISREG(st.st_mode) && faccessat(AT_FDCWD, *candidates, X_OK, AT_EACCESS) == 0)
				return 0;
			denied = 1;
		} else if (errno != ENOENT && errno != ENOTDIR) {
			denied |= errno == EACCES;
			if (errno != EACCES)
				return -1;
		}
	}
	return fail(denied ? EACCES : ENOENT);
}

static int op_exec(const struct op *op)
{
	char **candidates = vector(op, 0), **argv = vector(op, 1), **envp = vector(op, 2);
	int denied = 0;

	if (!*candidates || !*argv)
		return fail(EINVAL);
	if (finish() || (op->num[0] && lower_preserved(op->num[0])))
		return -1;
	for (; *candidates; candidates++) {
		execve(*candidates, argv, envp);
		denied |= errno == EACCES;
		if (errno != ENOENT && errno != ENOTDIR && errno != EACCES)
			return -1;
	}
	return denied ? fail(EACCES) : -1; /* there, but not to be executed, says more than not there */
}

/* PID 1 drops what it has no handler for; a blocked signal is kept, so SIGTERM ends it nevertheless. */
static int op_pause(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	if (sigprocmask(SIG_BLOCK, &set, NULL))
		return -1;
	prctl(PR_SET_NAME, "cri-mini-pause", 0, 0, 0);
	munmap((void *)plan.base, plan.size);
	if (syscall(SYS_close_range, FIRST_FD, ~0U, 0) < 0)
		return -1;
	for (;;) {
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
		int sig = sigwaitinfo(&set, NULL);
		if (sig == SIGTERM || sig == SIGINT)
			_exit(0);
	}
}

static int run(const struct op *op)
{
	const uint64_t *num = op->num;

	vectors_used = 0;
	switch ((enum op_kind)op->kind) {
	case OP_BARRIER:
		return op_barrier(op);
	case OP_HOOK:
		return op_hook(op);
	case OP_GATE:
		return op_gate(op);

	case OP_JOIN:
		return op_join(op);
	case OP_UNSHARE:
		return op_unshare(op);
	case OP_MAP_ROOT:
		return op_map_root();
	case OP_FORK:
		return op_fork();
	case OP_SETSID:
		return setsid() < 0 && errno != EPERM ? -1 : 0;
	case OP_CGROUP_JOIN:
		return write_text(slot_fd(op->slot[0]), "0");
	case OP_HOSTNAME:
		return sethostname(str(op, 0), strlen(str(op, 0)));
	case OP_DOMAINNAME:
		return setdomainname(str(op, 0), strlen(str(op, 0)));

	case OP_OOM_SCORE_ADJ:
		return op_oom_score_adj((int64_t)num[0]);
	case OP_SYSCTL:
		return write_proc("sys", str(op, 0), str(op, 1));
	case OP_TIME_OFFSET:
		return write_proc("self", "timens_offsets", str(op, 0));
	case OP_LSM_EXEC:
		return write_proc("self/attr", str(op, 0), str(op, 1));

	case OP_PROPAGATION:
		return (int)syscall(SYS_mount, NULL, str(op, 0), NULL, (unsigned long)num[0], NULL);
	case OP_ATTACH_ROOT:
		return op_attach_root(op);
	case OP_OPEN_TREE:
		return op_open_tree(op);
	case OP_MOUNT_FS:
		return op_mount_fs(op);
	case OP_MOUNT_BIND:
		return op_mount_bind(op);
	case OP_SET_ATTR:
		return op_set_attr(op);
	case OP_MKDIR:
		return op_mkdir(op);
	case OP_MKNOD:
		return op_mknod(op);
	case OP_SYMLINK:
		return op_symlink(op);
	case OP_MASK:
		return op_mask(op);
	case OP_READONLY:
		return op_readonly(op);
	case OP_PIVOT:
		return op_pivot(op);

	case OP_CONSOLE:
		return op_console(op);
	case OP_STDIO:
		return num[0] > 2 ? fail(EINVAL) : dup2(slot_fd(op->slot[0]), (int)num[0]) < 0 ? -1 : 0;
	case OP_CHDIR:
		return op_chdir(str(op, 0));

	case OP_RLIMIT:
		return op_rlimit(op);
	case OP_PERSONALITY:
		return syscall(SYS_personality, (unsigned)num[0]) < 0 ? -1 : 0;
	case OP_IO_PRIORITY:
		return (int)syscall(SYS_ioprio_set, 1 /* IOPRIO_WHO_PROCESS */, 0, (int)num[0]);
	case OP_SCHEDULER:
		return op_scheduler(op);
	case OP_CPU_AFFINITY:
		return syscall(SYS_sched_setaffinity, 0, (size_t)op->blob.len, blob(op)) < 0 ? -1 : 0;
	case OP_MEMORY_POLICY: /* it counts the bits of the mask, and one more (set_mempolicy(2)) */
		return (int)syscall(SYS_set_mempolicy, (int)num[0], op->blob.len ? blob(op) : NULL, 8UL * op->blob.len + 1);
	case OP_KEYRING:
		return op_keyring(str(op, 0));
	case OP_BOUNDING:
		return op_bounding(num[0]);
	case OP_USER:
		return op_user(op);
	case OP_CAPS:
		return op_caps(op);
	case OP_NO_NEW_PRIVS:
		return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	case OP_SECCOMP:
		return op_seccomp(op);

	case OP_LOOPBACK:
		return op_loopback();
	case OP_FIND_PROGRAM:
		return op_find_program(op);
	case OP_EXEC:
		return op_exec(op);
	case OP_PAUSE:
		return op_pause();
	case OP_EXIT:
		_exit(0);

	/* The parent's own; find_bad_op has refused them. */
	case OP_CGROUP_CREATE:
	case OP_UNIT_START:
	case OP_OPEN:
	case OP_FIFO:
	case OP_NS_CREATE:
	case OP_NS_PIN:
	case OP_MOUNT_PRIVATE:
	case OP_ROOTFS_OVERLAY:
	case OP_ROOTFS_HOST:
	case OP_STATE:
	case OP_CLONE:
	case OP_ID_MAP:
	case OP_SEND_FD:
	case OP_MAP_NS:
	case OP_NET_DEVICE:
	case OP_COPY_UP:
	case OP_RESCTRL:
	case OP_KINDS:
		break;
	}
	return fail(ENOSYS);
}

/* ---- The start ---- */

static void *map(int fd, size_t size, int prot, int flags)
{
	void *at = mmap(NULL, size, prot, flags, fd, 0);

	return at == MAP_FAILED ? NULL : at;
}

static _Noreturn void interpret(void)
{
	struct stat st;
	int64_t bad;

	prctl(PR_SET_NAME, "cri-mini-init", 0, 0, 0);
	if (hide() || fstat(slot_fd(SLOT_PROGRESS), &st) || st.st_size < (off_t)sizeof *progress)
		_exit(EXIT_MALFORMED);
	progress = map(slot_fd(SLOT_PROGRESS), sizeof *progress, PROT_READ | PROT_WRITE, MAP_SHARED);
	if (!progress || fstat(slot_fd(SLOT_PLAN), &st) || st.st_size <= 0 || st.st_size > MAX_BYTES)
		_exit(EXIT_MALFORMED);
	plan.size = (uint32_t)st.st_size;
	plan.base = map(slot_fd(SLOT_PLAN), plan.size, PROT_READ, MAP_PRIVATE);
	report(&progress->magic, PROGRESS_MAGIC);
	bad = plan.base ? find_bad_op() : UINT32_MAX;
	if (bad >= 0) {
		report(&progress->op, (uint32_t)bad);
		report(&progress->bad, 1);
		_exit(EXIT_MALFORMED);
	}

	umask_at_exec = umask(0);
	for (uint32_t i = 0; i < plan.ops; i++) {
		struct op op = op_at(i);
		report(&progress->op, op.index);
		if ((i == 0 && (reset_signals() || take_slots())) || run(&op)) {
			report(&progress->error, (uint32_t)errno);
			_exit(EXIT_FAILED);
		}
	}
	report(&progress->error, ENOEXEC); /* the plan ended without exec, pause or exit */
	_exit(EXIT_FAILED);
}

/*
 * The role of the tests: says of each plan on descriptor 3 and following whether it would be accepted, by one
 * character on standard output, and exits with 0 if all are. Each plan is laid against an inaccessible page,
 * so that reading past its end is a crash.
 */
static _Noreturn void check(void)
{
	int refused = 0;
	struct stat st;

	for (int fd = FIRST_FD; fstat(fd, &st) == 0; fd++) {
		size_t page = 4096, size = (size_t)st.st_size, room = (size + page - 1) / page * page;
		char *base = size > MAX_BYTES ? NULL : map(-1, room + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
		if (!base || mprotect(base + room, page, PROT_NONE) || pread(fd, base + room - size, size, 0) != (ssize_t)size)
			_exit(EXIT_FAILED);
		plan.base = base + room - size;
		plan.size = (uint32_t)size;
		int bad = find_bad_op() >= 0;
		refused |= bad;
		if (write(STDOUT_FILENO, bad ? "-" : "+", 1) != 1)
			_exit(EXIT_FAILED);
		munmap(base, room + page);
	}
	_exit(refused ? EXIT_MALFORMED : 0);
}

/* glibc hands the arguments of main to constructors. In any other role we return and Go starts. */
__attribute__((constructor(101))) static void start(int argc, char **argv)
{
	if (argc < 2)
		return;
	if (!strcmp(argv[1], "init"))
		interpret();
	if (!strcmp(argv[1], "check"))
		check();
}
