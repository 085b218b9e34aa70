// Command mini-runc is cri-mini's engine as an OCI runtime command line, with the names and the habits of runc:
//
//	mini-runc spec                      write a config.json to begin with
//	mini-runc run ID                    run a bundle, in the foreground or with --detach
//	mini-runc create ID; start ID       the same in two steps
//	mini-runc exec ID COMMAND...        a further process in a container
//	mini-runc state ID; list            what there is
//	mini-runc kill ID [SIGNAL]; delete ID
//	mini-runc pause ID; resume ID; ps ID
//	mini-runc update ID                 change limits
//	mini-runc events ID; features       what a container uses; what this program can do
//	mini-runc checkpoint ID; restore ID save a container and bring it back, with criu
//	mini-runc bundle IMAGE DIR          make a bundle of an image
//	mini-runc plan [BUNDLE]             print what a start would do, without doing it
//
// Each call is a process of its own and leaves nothing running but the container. What the next call must know
// is below --root. It needs the helper cri-mini-init beside it, or in /usr/libexec/cri-mini.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cri-mini/cri-mini/runtime/cgroup"
	"github.com/cri-mini/cri-mini/runtime/engine"
	"github.com/cri-mini/cri-mini/runtime/host"
	"github.com/cri-mini/cri-mini/runtime/seccomp"
)

// version is set by the build.
var version = "dev"

// app is one call: the global options and where it writes.
type app struct {
	root     string
	rootSet  bool // by --root
	systemd  bool
	rootless rootless
	log      *logger
	out      io.Writer
	facts    host.Facts // see probe
	probed   bool
	dry      bool // nothing may be written
}

type command struct {
	args, help string
	run        func(ctx context.Context, a *app, args []string) error
}

// commands is filled by init, for help refers to it.
var commands map[string]command

func init() {
	commands = map[string]command{
		"spec":       {"", "write a config.json to begin with", makeSpec},
		"create":     {"ID", "create a container", create},
		"start":      {"ID", "run the program of a created container", start},
		"run":        {"ID", "create a container and run its program", run},
		"exec":       {"ID COMMAND [ARG...]", "run a further process in a container", execute},
		"state":      {"ID", "print the state of a container", state},
		"list":       {"", "list the containers below --root", list},
		"kill":       {"ID [SIGNAL]", "send a signal (default TERM) to a container's init", kill},
		"delete":     {"ID", "delete a container", remove},
		"ps":         {"ID [PS-OPTION...]", "list the processes of a container", processes},
		"pause":      {"ID", "stop all processes of a container", pause},
		"resume":     {"ID", "let the processes of a paused container run again", resume},
		"update":     {"ID", "change the limits of a container", update},
		"events":     {"ID", "print what a container uses, and when it runs out of memory", events},
		"features":   {"", "print what this runtime can do, as JSON", features},
		"checkpoint": {"ID", "save a running container with criu", checkpoint},
		"restore":    {"ID", "make a container of a checkpoint", restore},
		"bundle":     {"IMAGE DIR", "make a bundle of an image of cri-mini's store, or of an archive or OCI layout at a path", makeBundle},
		"plan":       {"[BUNDLE]", "print what a start would do, without doing it", showPlan},
	}
}

var order = []string{
	"spec", "create", "start", "run", "exec", "state", "list", "kill", "delete", "ps", "pause", "resume", "update", "events", "features",
	"checkpoint", "restore", "plan", "bundle",
}

// noCommand is runc's exit status for a command that there is not.
const noCommand = 3

// exitError carries an exit status; one without words is that of a container's process.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit status %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

func main() {
	// A command does one thing after the other. With one processor Go starts no thread to look for more.
	runtime.GOMAXPROCS(1)
	os.Exit(call(os.Args[1:]))
}

// call runs one command line and gives its exit status.
func call(args []string) int {
	a, rest, err := parseGlobal(args)
	if err == nil && rest != nil {
		err = a.dispatch(rest)
	}
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return 0
	}
	var exit *exitError
	code := 1
	if errors.As(err, &exit) {
		code = exit.code
	}
	if exit == nil || exit.err != nil {
		a.log.fail(err)
	}
	return code
}

// globals defines what stands before the command.
func (a *app) globals(logFile *string) *flag.FlagSet {
	fs := newFlags("mini-runc")
	fs.StringVar(&a.root, "root", "", "directory of the containers' state; it should be on a tmpfs (default: "+defaultRoot+", or below $XDG_RUNTIME_DIR for others than root)")
	fs.StringVar(logFile, "log", "", "file to append records to")
	fs.StringVar(&a.log.format, "log-format", "text", "form of the records: text or json")
	fs.BoolVar(&a.log.debug, "debug", false, "log what is done, too")
	fs.BoolVar(&a.systemd, "systemd-cgroup", false, "have systemd make the cgroups; linux.cgroupsPath is then slice:prefix:name")
	fs.Var(&a.rootless, "rootless", "do without cgroups where they are not permitted: true, false or auto")
	return fs
}

// parseGlobal reads what stands before the command. A nil rest means that all is done.
func parseGlobal(args []string) (*app, []string, error) {
	a := &app{log: &logger{}, out: os.Stdout}
	var help, showVersion bool
	var logFile string
	fs := a.globals(&logFile)
	both(fs.BoolVar, &help, "help", "h", "list the commands")
	both(fs.BoolVar, &showVersion, "version", "v", "print the version")
	err := fs.Parse(args)
	if err == nil {
		err = a.log.open(logFile)
	}
	if err == nil {
		a.rootSet = given(fs, "root")
		err = a.placeRoot()
	}
	if err != nil {
		return a, nil, err
	}
	switch {
	case showVersion:
		if err := needLibrary(); err != nil {
			a.log.debugf("%v", err)
		}
		printVersion(a.out)
		return a, nil, nil
	case help || fs.NArg() == 0 || fs.Arg(0) == "help" && fs.NArg() == 1:
		usage(a.out, fs)
		return a, nil, nil
	case fs.Arg(0) == "help": // help COMMAND
		return a, []string{fs.Arg(1), "--help"}, nil
	}
	return a, fs.Args(), nil
}

// printVersion has the lines that callers of runc look for.
func printVersion(w io.Writer) {
	fmt.Fprintf(w, "mini-runc version %s\nspec: %s\ngo: %s\nlibseccomp: %s\n", version, specs.Version, runtime.Version(), seccomp.LibraryVersion())
}

func (a *app) dispatch(args []string) error {
	c, ok := commands[args[0]]
	if !ok {
		return &exitError{noCommand, fmt.Errorf("no command %q; mini-runc --help lists them", args[0])}
	}
	return c.run(context.Background(), a, args[1:])
}

func usage(w io.Writer, fs *flag.FlagSet) {
	fmt.Fprint(w, "usage: mini-runc [GLOBAL-OPTION...] COMMAND [OPTION...] [ARG...]\n\nCommands:\n")
	for _, name := range order {
		fmt.Fprintf(w, "  %-30s %s\n", name+" "+commands[name].args, commands[name].help)
	}
	printOptions(w, fs)
	fmt.Fprint(w, "\nmini-runc COMMAND --help lists a command's options.\n")
}

// engine gives the engine on --root.
func (a *app) engine() *engine.Command {
	return engine.NewCommand(engine.CommandConfig{Root: a.root, Warn: a.log.warn, Cgroups: a.cgroups, Helper: helper("cri-mini-init")})
}

func (a *app) cgroups() (*cgroup.Tree, error) {
	layout := a.facts.Cgroup
	if !a.probed {
		var err error
		if layout, err = host.ProbeCgroup(); err != nil {
			return nil, fmt.Errorf("cgroups: %w", err)
		}
	}
	tree, err := cgroup.New(cgroup.Config{Layout: cgroup.Layout(layout)})
	if err != nil {
		return nil, fmt.Errorf("cgroups: %w", err)
	}
	return tree, nil
}

// probe learns the facts of the machine, once.
func (a *app) probe() (err error) {
	if !a.probed {
		a.facts, err = host.Probe()
		a.probed = err == nil
		a.facts.CgroupDriver = host.DriverCgroupfs
		if a.systemd {
			a.facts.CgroupDriver = host.DriverSystemd
		}
	}
	return err
}

// helper finds a program that belongs to this one: beside it, or where packages put it.
func helper(name string) string {
	if path := beside(name); path != name {
		return path
	}
	return "/usr/libexec/cri-mini/" + name
}

// beside gives the path of a program that lies beside this one, or its name.
func beside(name string) string {
	if self, err := os.Executable(); err == nil {
		path := filepath.Join(filepath.Dir(self), name)
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return name
}
