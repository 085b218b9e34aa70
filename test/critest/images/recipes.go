package images

import (
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	ispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// The names that critest pulls (pkg/validate/consts.go of cri-tools).
const (
	e2e     = "registry.k8s.io/e2e-test-images/"
	staging = "gcr.io/k8s-staging-cri-tools/"

	// DigestRepo is the image that critest pulls by digest. The digest it has
	// in its source is that of upstream's build, so whoever builds critest
	// must put ours there.
	DigestRepo = staging + "test-image-digest"
	// ForeignRef is an image that has no manifest for this machine.
	ForeignRef = staging + "test-image-foreign:latest"
)

const searchPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// ipcs lists shared memory as util-linux does, as far as critest looks. There
// must be no digit in the header: critest looks for the id of a segment
// anywhere in the output, and the first id of an IPC namespace is 0.
const ipcsScript = `#!/bin/sh
echo "------ Shared Memory Segments --------"
echo "key shmid owner perms bytes nattch"
first=yes
while read -r key id perms size cpid lpid nattch uid rest; do
	[ -n "$first" ] || echo "$key $id $uid $perms $size $nattch"
	first=
done </proc/sysvipc/shm
`

const pgrepScript = `#!/bin/sh
found=1
for dir in /proc/[0-9]*; do
	{ read -r comm <"$dir/comm"; } 2>/dev/null || continue
	[ "${dir#/proc/}" != $$ ] || continue
	case $comm in *"$1"*) echo "${dir#/proc/}"; found=0 ;; esac
done
exit $found
`

// busyboxTree is the root file system under all images but the static ones.
// Applets are hard links: with symbolic links, masking /bin/ls would mask
// busybox itself and with it every other applet. The shell is the dynamic
// build, because Debian's static one runs applets by itself, never asks PATH,
// and so would not notice a masked one.
func busyboxTree(pool Tree) (Tree, error) {
	t := Tree{}
	static, err := pool.Resolve("usr/share/critest/busybox-static")
	if err != nil {
		return nil, err
	}
	t.File("bin/busybox", 0o755, static.Data)
	applets, err := listApplets(static.Data)
	if err != nil {
		return nil, err
	}
	for _, name := range applets {
		t.Hardlink(name, "bin/busybox")
	}
	if err := t.addELF(pool, "bin/busybox", "bin/sh"); err != nil {
		return nil, err
	}
	t.Hardlink("bin/ash", "bin/sh")
	t.File("usr/bin/ipcs", 0o755, []byte(ipcsScript))
	t.File("usr/bin/pgrep", 0o755, []byte(pgrepScript))
	t.Text("etc/passwd", "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/:/bin/false\n"+
		"www-data:x:33:33:www-data:/var/www:/bin/false\nnobody:x:65534:65534:nobody:/home:/bin/false\n")
	t.Text("etc/group", "root:x:0:\ndaemon:x:1:\nwww-data:x:33:\nnogroup:x:65534:\n")
	for _, dir := range []string{"dev", "proc", "sys", "mnt", "home", "var/run", "var/www"} {
		t.Dir(dir, 0o755)
	}
	t.Dir("root", 0o700)
	t.Dir("tmp", 0o1777)
	return t, nil
}

// listApplets asks busybox where its applets belong.
func listApplets(busybox []byte) ([]string, error) {
	dir, err := os.MkdirTemp("", "critest-images-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	program := filepath.Join(dir, "busybox")
	if err := os.WriteFile(program, busybox, 0o755); err != nil {
		return nil, err
	}
	out, err := exec.Command(program, "--list-full").Output()
	if err != nil {
		return nil, fmt.Errorf("list busybox applets: %w", err)
	}
	var names []string
	for name := range strings.FieldsSeq(string(out)) {
		if base := path.Base(name); base != "busybox" && base != "sh" && base != "ash" && !strings.HasPrefix(base, "dpkg") {
			names = append(names, name)
		}
	}
	return names, nil
}

func nginxTree(pool Tree) (Tree, error) {
	t := Tree{}
	t.Dir("var/lib/nginx", 0o755)
	t.Dir("var/log/nginx", 0o755)
	t.Text("usr/share/nginx/html/leftover.html", "the layer above removes this\n")
	return t, t.addELF(pool, "usr/sbin/nginx", "usr/sbin/nginx")
}

// nginxConfig is the layer on top: a server on one port, logging to the
// container's streams, and a whiteout.
func nginxConfig(port int) Tree {
	t := Tree{}
	t.Text("etc/nginx/nginx.conf", `user www-data;
worker_processes 1;
pid /var/run/nginx.pid;
error_log stderr notice;
events { worker_connections 64; }
http {
	access_log /dev/stdout;
	server {
		listen `+strconv.Itoa(port)+`;
		root /usr/share/nginx/html;
	}
}
`)
	t.Text("usr/share/nginx/html/index.html", "<!DOCTYPE html>\n<title>nginx</title>\n<p>nginx answers.\n")
	t.Whiteout("usr/share/nginx/html/leftover.html")
	return t
}

// httpdTree is Apache under upstream's name: critest looks for "httpd" in the
// log, where Apache writes its command line.
func httpdTree(pool Tree) (Tree, error) {
	t := Tree{}
	t.Text("etc/httpd.conf", `ServerRoot /etc
ServerName localhost
Listen 80
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule dir_module /usr/lib/apache2/modules/mod_dir.so
User www-data
Group www-data
PidFile /var/run/httpd.pid
DocumentRoot /var/www
DirectoryIndex index.html
ErrorLog /dev/stderr
LogLevel notice
`)
	t.Text("var/www/index.html", "<!DOCTYPE html>\n<title>httpd</title>\n<p>httpd answers.\n")
	for _, module := range []string{"mod_mpm_event.so", "mod_authz_core.so", "mod_dir.so"} {
		name := "usr/lib/apache2/modules/" + module
		if err := t.addELF(pool, name, name); err != nil {
			return nil, err
		}
	}
	return t, t.addELF(pool, "usr/sbin/apache2", "usr/sbin/httpd")
}

// single is a layer of one file, which tells the test images apart.
func single(name string) Tree {
	t := Tree{}
	t.Text(name, "")
	return t
}

// recipes lists every image. Which has which media type and compression is
// arbitrary, but every combination that registries serve is among those that
// critest starts.
func recipes(pool Tree) ([]image, error) {
	busybox, err := busyboxTree(pool)
	if err != nil {
		return nil, err
	}
	nginx, err := nginxTree(pool)
	if err != nil {
		return nil, err
	}
	httpd, err := httpdTree(pool)
	if err != nil {
		return nil, err
	}
	sh := ispec.ImageConfig{Env: []string{searchPath}, Cmd: []string{"sh"}}
	serve := ispec.ImageConfig{
		Env: []string{searchPath}, Cmd: []string{"nginx", "-g", "daemon off;"},
		ExposedPorts: map[string]struct{}{"80/tcp": {}}, StopSignal: "SIGQUIT",
	}
	list := []image{
		{refs: []string{e2e + "busybox:1.29-2"}, layers: []Tree{busybox}, config: sh, decoy: true},
		{refs: []string{e2e + "nginx:1.14-2"}, docker: true, layers: []Tree{busybox, nginx, nginxConfig(80)}, config: serve},
		{refs: []string{staging + "hostnet-nginx-" + runtime.GOARCH + ":latest"}, docker: true,
			layers: []Tree{busybox, nginx, nginxConfig(12003)}, config: serve},
		{refs: []string{e2e + "httpd:2.4.39-4"}, pack: zstandard, layers: []Tree{busybox, httpd}, config: ispec.ImageConfig{
			Env: []string{searchPath}, Cmd: []string{"httpd", "-f", "/etc/httpd.conf", "-D", "FOREGROUND"},
			ExposedPorts: map[string]struct{}{"80/tcp": {}}, StopSignal: "SIGWINCH",
		}},
		{refs: []string{staging + "test-image-foreign:latest"}, layers: []Tree{busybox}, config: sh, foreign: true},
	}
	list = append(list, staticImages(pool)...)
	list = append(list, userImages(busybox, sh)...)
	return append(list, plainImages(busybox, sh)...), nil
}

func staticImages(pool Tree) []image {
	pause, suid := Tree{}, Tree{}
	pause.File("pause", 0o755, pool["usr/share/critest/pause"].Data)
	suid.File("usr/bin/nonewprivs", 0o4755, pool["usr/share/critest/nonewprivs"].Data)
	return []image{
		{refs: []string{"registry.k8s.io/pause:3.9", "k8s.gcr.io/pause:3.9"}, docker: true, layers: []Tree{pause},
			config: ispec.ImageConfig{Env: []string{searchPath}, Entrypoint: []string{"/pause"}, User: "65535:65535"}},
		{refs: []string{e2e + "nonewprivs:1.3"}, pack: plain, layers: []Tree{suid},
			config: ispec.ImageConfig{Env: []string{searchPath}, Entrypoint: []string{"/usr/bin/nonewprivs"}}},
	}
}

func userImages(busybox Tree, config ispec.ImageConfig) []image {
	group := Tree{}
	group.Text("etc/passwd", string(busybox["etc/passwd"].Data)+"default-user:x:1000:1000:default:/home/default-user:/bin/sh\n")
	group.Text("etc/group", string(busybox["etc/group"].Data)+"default-user:x:1000:\ngroup-defined-in-image:x:50000:default-user\n")
	config.User = "1000"
	list := []image{{refs: []string{staging + "test-image-predefined-group:latest"}, layers: []Tree{busybox, group}, config: config}}
	for _, u := range []struct{ name, user string }{
		{"uid", "1002"}, {"username", "www-data"}, {"uid-group", "1003:1004"}, {"username-group", "www-data:1004"},
	} {
		config.User = u.user
		list = append(list, image{refs: []string{staging + "test-image-user-" + u.name + ":latest"}, layers: []Tree{busybox}, config: config})
	}
	return list
}

func plainImages(busybox Tree, config ispec.ImageConfig) []image {
	var list []image
	add := func(file string, refs ...string) {
		list = append(list, image{refs: refs, docker: true, layers: []Tree{busybox, single(file)}, config: config})
	}
	for _, name := range []string{"1", "2", "3", "latest", "digest"} {
		add("test-image-"+name, staging+"test-image-"+name+":latest")
	}
	for _, tag := range []string{"test", "all"} {
		add("test-image-tag-"+tag, staging+"test-image-tag:"+tag)
	}
	add("same-image", staging+"test-image-tags:1", staging+"test-image-tags:2", staging+"test-image-tags:3")
	return list
}
