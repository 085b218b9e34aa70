# Sourced by scripts that run programs of Debian packages without installing them.

# unpack_debian DIR SUITE PACKAGE... unpacks packages of a suite of Debian, with all
# that they need, below DIR, once. apt's own state is not touched. For programs of
# a suite with a newer libc there is relink_debian.
unpack_debian() {
    local dir=$1 suite=$2 work names mirror
    shift 2
    [[ ! -d $dir ]] || return 0
    mkdir -p "${dir%/*}"
    work=$(mktemp -d "${dir%/*}/.debian-XXXXXX")
    mkdir -p "$work"/{apt/lists/partial,apt/archives/partial,root}
    chmod -R a+rX "$work"
    # The mirror is the one that this machine installs from.
    mirror=${DEBIAN_MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 'Label: Debian' | sort -u | head -1)}
    [[ -n $mirror ]] || { echo "no Debian mirror in apt's sources: apt-get update, or set DEBIAN_MIRROR" >&2; return 1; }
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >"$work/apt/sources"
    cat >"$work/apt/conf" <<EOF
Dir::Etc::sourcelist "$work/apt/sources";
Dir::Etc::sourceparts "-";
Dir::State::lists "$work/apt/lists";
Dir::State::status "/dev/null";
Dir::Cache "$work/apt";
Acquire::Languages "none";
APT::Sandbox::User "root";
EOF
    (
        export APT_CONFIG=$work/apt/conf
        apt-get update -qq
        names=$(apt-get install -s --no-install-recommends "$@" | awk '/^Inst/ {print $2}')
        cd "$work/apt"
        # shellcheck disable=SC2086 # a list
        apt-get download -qq $names
        for deb in *.deb; do dpkg-deb -x "$deb" "$work/root"; done
    )
    for d in bin sbin lib lib64; do # packages of before /usr was merged
        [[ ! -d $work/root/$d || -L $work/root/$d ]] || cp -a "$work/root/$d" "$work/root/usr/"
    done
    mv "$work/root" "$dir"
    rm -rf "$work"
}

# relink_debian DIR PROGRAM TARGET makes TARGET from a program below DIR, with the
# loader and the libraries of DIR. A wrapper that calls the loader would not do:
# crun executes /proc/self/exe.
relink_debian() {
    [[ ! -e $3 ]] || return 0
    local libs=$1/usr/lib/$(uname -m)-linux-gnu loader
    unpack_debian "$cache/patchelf" bookworm patchelf
    loader=$(echo "$libs"/ld-linux-*.so.2)
    cp "$2" "$3.new"
    "$cache/patchelf/usr/bin/patchelf" --set-interpreter "$loader" --force-rpath --set-rpath "$libs" "$3.new"
    mv "$3.new" "$3"
}
