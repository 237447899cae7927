// Package postgres is the database engine for PostgreSQL 13 and newer. It runs the programs that are installed
// on the host, as an unprivileged user where this process is root, since the server refuses root.
//
// A folder of it holds the cluster in data, what the server says in server.log, and in dayfly.json what a
// copy has to know of itself. Its server listens on a socket in a short private folder beside
// TCP, where only the operating system's users root and the owner get in, as a superuser of ours; over TCP just the clone's own
// user gets in, with its password, and is no superuser: it owns everything in its databases and can run no programs
// and read no files through the server, so it cannot reach the clones of others.
//
// Roles that a source names are made where they are missing, without the right to log in; whatever belonged to
// anybody belongs to the clone's user in the end. Passwords of a source's roles are not kept.
package postgres
