package dayfly

// Heads are the branches of a repository.
type Heads struct {
	Default  string            // name of the default branch; "" = there is none
	Branches map[string]string // name -> commit
}
