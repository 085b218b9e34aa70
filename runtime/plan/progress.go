package plan

// The progress page is one shared page in which init stores the index of an op before it begins it, so
// that whoever watches knows where a silent death happened. Offsets are in bytes; all fields are u32.
const (
	ProgressMagic = 0x50524f47

	ProgressAtMagic = 0  // init has begun to interpret
	ProgressAtOp    = 4  // index, in the whole plan, of the op at work
	ProgressAtErrno = 8  // errno of the op that ended the plan; 0 while it goes on
	ProgressAtPID   = 12 // after a Fork: the pid of the process that stays, as its maker sees it
	ProgressAtBad   = 16 // 1: the plan was malformed; ProgressAtOp is the encoded op's place
	// ProgressAtStatus holds the wait status (wait(2)) of the last hook that init ran: what ECHILD of a hook means.
	ProgressAtStatus = 20
	ProgressSize     = 4096
)
