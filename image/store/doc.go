// Package store keeps images on disk: unpacked layers as plain directories, one JSON record per image.
//
// It owns the directory given to Open and nothing else reads or writes there. Only image imports it.
//
//	lock              held while the store is open
//	l/<id>/f          the files of a layer; <id> is short, since overlayfs option strings are (256 bytes before 6.7)
//	l/<id>/layer.json what the files do not tell: diff id, size, implied directories, links to layers below
//	i/<hex>.json      one image: names, manifest, config, layers, merged /etc/passwd and /etc/group
//	bad/              records that could not be read, kept for a look
//	empty/            directories without files
//	tmp/              whatever is being made or thrown away; emptied at Open
//
// Invariant: what has its final name is whole. A layer or record is made in tmp and renamed. A record is renamed only
// after one syncfs(2) has put its layers on disk; so after a power failure a layer counts if a record names it, and
// after a mere crash (same boot id) also if none does, which is how an interrupted pull keeps its finished layers. A
// layer is thrown away only when no record names it, no container uses it and no pull is about to.
package store
