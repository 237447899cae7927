// Package dayfly holds the nouns of dayfly: projects, services, environments,
// deployments, instances and events, and the error type that every layer
// speaks. It uses the standard library only and does no I/O, so every other
// package may import it and it imports none of them.
//
// From wish to running, each stage kept apart from the next:
//
//	EnvironmentSpec  asked     what a user wrote
//	Resolution       resolved  commits, definitions, who provides each service
//	release.State    released  which deployments carry the traffic now
//	Deployment       wanted    what a runner has to keep
//	DeploymentStatus observed  what the runner saw
//	Environment      the answer of the API, computed from all of them
package dayfly

// Format is the version of the records written by this release. A record with
// a higher number was written by a newer server and is refused.
const Format = 1
