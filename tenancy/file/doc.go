// Package file is the source behind --config-dir: a directory of YAML and JSON,
// watched, turned into the events that the Model absorbs.
//
//	platform/        any kind, of any namespace
//	tenants/<name>/  namespaced kinds of namespaces that are labelled as <name>'s
//
// Below these, files ending in .yaml, .yml or .json count, at any depth; names
// that begin with a dot do not. Symbolic links are followed as long as they
// stay within the folder, as ConfigMap volumes have them.
//
// Invariants:
//
//  1. What a directory holds decides alone what is applied, not the order in
//     which it came to hold it: after any changes that leave no error, the
//     objects are those of a fresh load.
//  2. The owner's object stays: platform/ goes before tenants/, then the first
//     path in byte order, then the first document. Whatever a tenant's folder
//     holds of others' is an error of that document and nothing more, and says
//     the same whether or not what it names exists.
//  3. A bad object hurts only itself and keeps its last good version (see package
//     object for what gives access). A file that cannot be parsed or read keeps
//     all it had. platform/ or tenants/ that vanish or lose all files at once
//     keep all they had: that is a lost mount and not a wish, until Confirm.
//  4. Removing a file, or a folder below those two, removes its objects.
//  5. Only files whose content changed are decoded, only objects that differ
//     become events, in an order that depends on the directory alone.
//  6. What a change costs follows from what was noticed, not from how much there
//     is. What goes unnoticed is found by a walk, after Recheck at the latest.
package file
