// Package engine carries out plans: it is the OCI runtime.
//
// It owns the parent side's interpreter (run), the monitors, the private mount namespace that holds the pods'
// pins, and the release of every object that it makes. The daemon uses it through Engine, with monitors;
// mini-runc through Command, without. sandbox and the commands may import it; it imports nothing above itself.
//
// Invariant: whatever outlives the process of this package was intended in the caller's journal before it was
// made, and Release undoes it, any number of times.
package engine
