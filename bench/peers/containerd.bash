# Sourced by the scripts beside it: containerd and runc, built from their modules
# into the cache once per version. containerd's files are in PEER, its programs
# in PEER/bin; write_containerd_config DIR makes a configuration in DIR, with the
# placeholders of test/critest's --config-template, and says its name.

here=$(cd "${BASH_SOURCE[0]%/*}" && pwd)
cache=${XDG_CACHE_HOME:-$([[ $(id -u) == 0 ]] && echo /var/cache || echo "$HOME/.cache")}/cri-mini-test
PEER=$cache/peers-$(cat "$here"/go.{mod,sum} | sha256sum | cut -c1-12)
export PATH=$PATH:/usr/local/go/bin:/usr/sbin:/sbin

build_peers() {
    [[ ! -d $PEER ]] || return 0
    local work
    mkdir -p "$cache"
    work=$(mktemp -d "$cache/.peers-XXXXXX")
    (
        cd "$here"
        go build -trimpath -buildvcs=false -tags no_btrfs -ldflags='-s -w' -o "$work/bin/" \
            github.com/containerd/containerd/v2/cmd/{containerd,containerd-shim-runc-v2,ctr} \
            github.com/containernetworking/plugins/plugins/{ipam/host-local,main/bridge,main/loopback,meta/portmap}
        go build -trimpath -buildvcs=false -tags seccomp -ldflags='-s -w' -o "$work/bin/" github.com/opencontainers/runc
    )
    mv "$work" "$PEER"
}

write_containerd_config() {
    mkdir -p "$1/cni"
    sed "s|@BIN@|$PEER/bin|; s|@CNI@|$1/cni|" "$here/containerd.toml" >"$1/containerd.toml"
    cat >"$1/cni/10-bridge.conflist" <<EOF
{"cniVersion": "1.0.0", "name": "peers", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
   "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.99.0.0/16"}]],
            "routes": [{"dst": "0.0.0.0/0"}], "dataDir": "$1/ipam"}},
  {"type": "portmap", "capabilities": {"portMappings": true}}
]}
EOF
    echo "$1/containerd.toml"
}
