package status_test

import (
	"testing"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/status"
)

func registration(service, version, host string, at int64) dayfly.Registration {
	return dayfly.Registration{Service: service, Version: version, Host: host, Project: "shop", Environment: "temp", CreatedAt: time.Unix(at, 0)}
}

func plain(host string) string { return "http://" + host }

func TestWhatIsRegisteredAnswersForAServiceThatFails(t *testing.T) {
	in := status.Input{
		Record: dayfly.EnvironmentRecord{ID: "e", Spec: dayfly.EnvironmentSpec{Name: "temp", Project: "shop"}},
		Resolution: &dayfly.Resolution{Services: []dayfly.ResolvedService{{
			Name: "web", From: dayfly.FromOwn, Version: "main", Commit: "c1", Hash: "h", Hosts: []string{"temp.localhost", "web-temp.localhost"},
			Definition: &dayfly.Definition{Routes: []dayfly.PathRoute{{Path: "/"}}},
		}}},
		Deployments: []dayfly.Deployment{{ID: "d", Key: dayfly.DeploymentKey{Service: "web", Version: "c1", Hash: "h", Owner: "e"}}},
		Observed:    map[string]dayfly.DeploymentStatus{"d": {Phase: dayfly.DeploymentFailed, Message: "it does not build"}},
		URL:         plain,
	}
	if got := status.View(in); got.Phase != dayfly.PhaseFailed || got.Services[0].From != dayfly.FromOwn {
		t.Fatalf("without: %+v", got)
	}
	in.Registered = []dayfly.Registration{registration("web", "b", "", 1), registration("web", "a", "", 2), registration("web", "b", "", 3), registration("more", "c", "more-temp.localhost", 4)}
	got := status.View(in)
	want := []dayfly.EnvironmentService{
		{Name: "web", Version: "a, b", From: dayfly.FromRegistered, Env: "temp", Phase: dayfly.PhaseReady, Instances: 3, URL: "http://web-temp.localhost"},
		{Name: "more", Version: "c", From: dayfly.FromRegistered, Env: "temp", Phase: dayfly.PhaseReady, Instances: 1, URL: "http://more-temp.localhost"},
	}
	if got.Phase != dayfly.PhaseReady || got.Message != "" || got.URL != "http://temp.localhost" || got.URLs["more"] != "http://more-temp.localhost" {
		t.Errorf("%+v", got)
	}
	for i := range want {
		if got.Services[i] != want[i] {
			t.Errorf("%+v, want %+v", got.Services[i], want[i])
		}
	}
	in.Resolution = nil
	if got := status.View(in); len(got.Services) != 2 || got.Services[0].Name != "more" {
		t.Errorf("before it is resolved: %+v", got.Services)
	}
}

func TestAnEnvironmentThatNobodyCreatedIsWhatIsRegistered(t *testing.T) {
	in := status.Input{URL: plain, Registered: []dayfly.Registration{registration("web", "v", "web-temp.localhost", 5), registration("web", "v", "web-temp.localhost", 3)}}
	got := status.Unmanaged("temp", "shop", in)
	if got.Name != "temp" || got.Project != "shop" || got.Phase != dayfly.PhaseReady || !got.CreatedAt.Equal(time.Unix(3, 0)) || got.ExpiresAt != nil || got.URL != "http://web-temp.localhost" {
		t.Errorf("%+v", got)
	}
	in.Registered = append(in.Registered, registration("api", "v", "api-temp.localhost", 9))
	got = status.Unmanaged("temp", "shop", in)
	if got.URL != "" || len(got.Services) != 2 || got.Services[0].Name != "api" || got.Services[1].Instances != 2 || len(got.URLs) != 2 {
		t.Errorf("with two services: %+v", got)
	}
}
