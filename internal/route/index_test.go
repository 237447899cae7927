package route

import (
	"fmt"
	"hash/maphash"
	"maps"
	"testing"

	"pgregory.net/rapid"
)

// weak gives entries hashes that collide in all bits, in the first levels or in
// the last one.
func weak(key string) uint64 {
	switch key[0] % 3 {
	case 0:
		return 7
	case 1:
		return uint64(key[1]%4) << 60
	}
	return uint64(key[1])
}

func TestIndexIsAMapWhateverTheHashesAre(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type version struct {
			x    index[int]
			want map[string]int
		}
		key := rapid.StringMatching(`[a-f][a-h]`)
		versions := []version{{want: map[string]int{}}}
		for n := range rapid.IntRange(1, 60).Draw(t, "steps") {
			// Going on from any version shows that none is changed by another.
			from := rapid.SampledFrom(versions).Draw(t, "from")
			next := version{x: from.x, want: maps.Clone(from.want)}
			k := key.Draw(t, "key")
			if rapid.Bool().Draw(t, "put") {
				next.x.root = from.x.root.put(&entry[int]{hash: weak(k), key: k, value: n + 1}, 0)
				next.want[k] = n + 1
			} else {
				next.x.root = from.x.root.remove(weak(k), k, 0)
				delete(next.want, k)
			}
			versions = append(versions, next)
		}
		for _, v := range versions {
			for a := 'a'; a <= 'f'; a++ {
				for b := 'a'; b <= 'h'; b++ {
					k := string([]rune{a, b})
					if got := v.x.find(weak(k), []byte(k)); got != v.want[k] {
						t.Fatalf("%s: got %d, want %d", k, got, v.want[k])
					}
				}
			}
			if len(v.want) == 0 && v.x.root != nil {
				t.Fatal("an empty index keeps nodes")
			}
		}
	})
}

func TestIndexShrinksBackToNothing(t *testing.T) {
	x := index[int]{seed: maphash.MakeSeed()}
	const n = 5000
	for i := range n {
		x = x.with(fmt.Sprint(i), i+1)
	}
	for i := range n {
		if got := x.get([]byte(fmt.Sprint(i))); got != i+1 {
			t.Fatalf("%d: got %d", i, got)
		}
		x = x.without(fmt.Sprint(i))
	}
	if x.root != nil {
		t.Errorf("%d slots are left", len(x.root.slots))
	}
}
