// Package checkpoint owns what is said to criu(8) and what is read of its images: a worker process (criu swrk) that gets
// one request and reports its steps, and the check of images before a restore. runtime/engine imports it; it imports
// nothing of this module.
//
// criu restores as root whatever the images say: the ids and capabilities of the processes, their namespaces, mounts
// of any file system, and whoever brings the images has written them. So they are no more than a wish. Check holds
// them against a Grant, which is made of the container's config.json, before criu runs.
//
// Invariant: nothing of an image is believed that was not checked, and what cannot be read is refused.
package checkpoint
