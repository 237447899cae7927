package resolve

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/dayfly-dev/dayfly"
)

// resolveIn resolves an environment with a context, and gives what comes of it as JSON.
func (w *town) resolveIn(ctx context.Context, token string, spec dayfly.EnvironmentSpec) (string, error) {
	w.t.Helper()
	spec.Project = "shop"
	given := 0
	res, err := w.resolver().Resolve(ctx, Input{
		Project: dayfly.Project{Name: "shop", Repo: shop, Baseline: w.baseline}, Token: dayfly.NewSecret(token),
		Record:  dayfly.EnvironmentRecord{ID: "id-" + spec.Name, Spec: spec},
		Address: func() (string, error) { given++; return fmt.Sprintf("127.9.2.%d", given), nil },
		Environment: func(name string) (dayfly.EnvironmentRecord, *dayfly.Resolution, bool) {
			rec, ok := w.recs[name]
			return rec, w.resolutions[name], ok
		},
	})
	if err != nil {
		return "", err
	}
	b, err := json.Marshal(res)
	if err != nil {
		w.t.Fatal(err)
	}
	return string(b), nil
}

func TestWhatManyNeedIsReadOnceAndComesToTheSame(t *testing.T) {
	w := newTown(t)
	if _, err := w.make(dayfly.EnvironmentSpec{Name: "production", Branch: "main"}); err != nil {
		t.Fatal(err)
	}
	many := Remember(t.Context())
	for i := range 20 {
		for _, spec := range []dayfly.EnvironmentSpec{
			{Name: fmt.Sprint("pinned-", i), Services: []dayfly.ServiceSpec{{Name: "web", Version: "v2"}}},
			{Name: fmt.Sprint("branch-", i), Branch: "feature"},
			{Name: fmt.Sprint("defined-", i), Branch: "defined"},
		} {
			before := len(w.shown[shop])
			got, err := w.resolveIn(many, "t", spec)
			asked := len(w.shown[shop]) - before
			if err != nil {
				t.Fatal(err)
			}
			if i > 0 && asked > 0 {
				t.Errorf("%s asked the repository %d times", spec.Name, asked)
			}
			if want, err := w.resolveIn(t.Context(), "t", spec); err != nil || got != want {
				t.Errorf("%s is\n%s\nand without a memory\n%s %v", spec.Name, got, want, err)
			}
		}
	}
}

func TestWhatIsRememberedIsForThoseWhoMayReadIt(t *testing.T) {
	w := newTown(t)
	many := Remember(t.Context())
	asked := map[string]int{}
	for _, token := range []string{"one", "two"} {
		if _, err := w.resolveIn(many, token, dayfly.EnvironmentSpec{Name: token, Branch: "main"}); err != nil {
			t.Fatal(err)
		}
		for _, shown := range w.shown[shop] {
			if shown == token {
				asked[token]++
			}
		}
	}
	if asked["one"] == 0 || asked["one"] != asked["two"] {
		t.Errorf("with the second token less was asked for than with the first: %v", asked)
	}
}

func TestWhatCouldNotBeReadIsAskedForAgain(t *testing.T) {
	w := newTown(t)
	many := Remember(t.Context())
	spec := dayfly.EnvironmentSpec{Name: "late", Branch: "main", Services: []dayfly.ServiceSpec{{Name: "web", Branch: "late"}}}
	if _, err := w.resolveIn(many, "", spec); dayfly.ErrorCode(err) != dayfly.CodeNotFound {
		t.Fatalf("without the branch it is %v", err)
	}
	w.put(shop, "c9", map[string]string{"compose.yaml": lendable}, "late")
	if _, err := w.resolveIn(many, "", spec); err != nil {
		t.Error(err)
	}
}

func TestANewMemoryKnowsNothingOfTheOneBefore(t *testing.T) {
	w := newTown(t)
	spec := dayfly.EnvironmentSpec{Name: "main", Branch: "main"}
	before, err := w.resolveIn(Remember(t.Context()), "", spec)
	if err != nil {
		t.Fatal(err)
	}
	w.refs[shop]["main"] = "c2"
	after, err := w.resolveIn(Remember(t.Context()), "", spec)
	if err != nil || after == before {
		t.Errorf("after the branch has moved it is the same: %s %v", after, err)
	}
}

func TestAMemoryIsBounded(t *testing.T) {
	m := memoryOf(Remember(t.Context()))
	for i := range 3 * rememberedTexts {
		if _, err := recall(m, func(m *memory) map[refOf]found { return m.commits }, refOf{repo: fmt.Sprint(i)}, rememberedTexts,
			func() (found, error) { return found{}, nil }); err != nil {
			t.Fatal(err)
		}
		if len(m.commits) > rememberedTexts {
			t.Fatalf("%d are remembered", len(m.commits))
		}
	}
}
