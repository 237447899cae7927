package spec

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/dayfly-dev/dayfly"
)

func TestACommandIsSplitAsAShellSplitsWords(t *testing.T) {
	for _, c := range []struct {
		in   string
		want dayfly.Command
	}{
		{"", nil},
		{" \t\n", nil},
		{"bin/web", dayfly.Command{"bin/web"}},
		{"bin/web -p $PORT  --x=${HOME}", dayfly.Command{"bin/web", "-p", "$PORT", "--x=${HOME}"}},
		{`a 'b  c' "d e"`, dayfly.Command{"a", "b  c", "d e"}},
		{`a "" ''`, dayfly.Command{"a", "", ""}},
		{`pre'mid'"post"`, dayfly.Command{"premidpost"}},
		{`a '$X' \$X "\$X" "$X"`, dayfly.Command{"a", "$$X", "$$X", "$$X", "$X"}},
		{`a "b\"c\\d\e"`, dayfly.Command{"a", `b"c\d\e`}},
		{`a b\ c \"`, dayfly.Command{"a", "b c", `"`}},
		{"a \\\n b", dayfly.Command{"a", "b"}},
		{"a \"b\\\nc\"", dayfly.Command{"a", "bc"}},
		{"\n a b\n", dayfly.Command{"a", "b"}},
		{`a '|' "&&" \; ">"`, dayfly.Command{"a", "|", "&&", ";", ">"}},
		{`a '$(b)' \(x\)`, dayfly.Command{"a", "$$(b)", "(x)"}},
		{"a $1 $? 100$ $-", dayfly.Command{"a", "$$1", "$$?", "100$$", "$$-"}},
		{`a $$X "$$X" $$$X`, dayfly.Command{"a", "$$X", "$$X", "$$$X"}},
		{"a $'X' \"$\"X", dayfly.Command{"a", "$$X", "$$X"}},
		{"a --x=y K=V", dayfly.Command{"a", "--x=y", "K=V"}},
		{"echo *.go ~ {a,b} # x", dayfly.Command{"echo", "*.go", "~", "{a,b}", "#", "x"}},
	} {
		got, err := SplitCommand(c.in)
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%q: %q, %v, want %q", c.in, got, err, c.want)
		}
	}
}

func TestWhatOnlyAShellCanDoIsAnErrorThatSaysHowToAskForOne(t *testing.T) {
	for in, what := range map[string]string{
		"a | b":                "an unquoted |",
		"a && b":               "an unquoted &",
		"a&":                   "an unquoted &",
		"a || b":               "an unquoted |",
		"a; b":                 "an unquoted ;",
		"a > b":                "an unquoted >",
		"a <b":                 "an unquoted <",
		"(a)":                  "an unquoted (",
		"a b)":                 "an unquoted )",
		"a `b`":                "a command in a command",
		"a $(b)":               "a command in a command",
		`a "$(b)"`:             "a command in a command",
		"a \"`b`\"":            "a command in a command",
		"a ${PORT:-80}":        "${ with more than a name",
		`a "${PORT:-80}"`:      "${ with more than a name",
		"a ${}":                "${ with more than a name",
		"a ${PORT":             "${ with more than a name",
		"PORT=80 a":            "a variable before the command",
		"npm install\nnpm run": "a second line",
	} {
		_, err := SplitCommand(in)
		if err == nil {
			t.Errorf("%q: no error", in)
			continue
		}
		want := what + ` needs a shell, and none is run: write ["sh", "-c", ` + quote(in) + `] if you want one`
		if err.Error() != want {
			t.Errorf("%q: %v\nwant %s", in, err, want)
		}
	}
}

// quote writes a text as it stands in a YAML list.
func quote(s string) string {
	return `"` + strings.NewReplacer("\n", `\n`, `"`, `\"`).Replace(s) + `"`
}

func TestAQuoteThatIsNotClosedIsAnError(t *testing.T) {
	for in, want := range map[string]string{
		`a 'b`:  `a single quote is not closed in "a 'b"`,
		`a "b`:  `a double quote is not closed in "a \"b"`,
		`a "b\`: `a double quote is not closed in "a \"b\\"`,
		`a \`:   `a backslash ends "a \\"`,
	} {
		if _, err := SplitCommand(in); err == nil || err.Error() != want {
			t.Errorf("%q: %v\nwant %s", in, err, want)
		}
	}
}

func TestAVariableStaysInsideOfItsArgument(t *testing.T) {
	vars := map[string]string{"PORT": "80", "MSG": "a b; $PORT `x` 'y'", "_x1": "u"}
	for in, want := range map[string]string{
		"":             "",
		"$PORT":        "80",
		"-p${PORT}x":   "-p80x",
		"$PORT$PORT":   "8080",
		"$MSG":         "a b; $PORT `x` 'y'",
		"$UNKNOWN.":    ".",
		"${UNKNOWN}":   "",
		"$$PORT":       "$PORT",
		"$$$PORT":      "$80",
		"$":            "$",
		"100$":         "100$",
		"$1 $? $@":     "$1 $? $@",
		"${PORT":       "${PORT",
		"${PORT:-1}":   "${PORT:-1}",
		"${}":          "${}",
		"$_x1":         "u",
		"$PORTx":       "",
		"${PORT}${_x1": "80${_x1",
	} {
		if got := Expand(dayfly.Command{in}, vars); len(got) != 1 || got[0] != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestACommandMentionsWhatItUses(t *testing.T) {
	for _, c := range []struct {
		in   string
		want bool
	}{
		{"web -p $PORT", true}, {"web -p=${PORT}", true}, {"web '$PORT'", false},
		{`web \$PORT`, false}, {"web $PORTAL", false}, {"web PORT", false},
	} {
		command, err := SplitCommand(c.in)
		if err != nil || Mentions(command, "PORT") != c.want {
			t.Errorf("%q: %v, %v", c.in, Mentions(command, "PORT"), err)
		}
	}
}

func TestQuotedArgumentsComeBackAsTheyAre(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		args := rapid.SliceOfN(rapid.String(), 1, 5).Draw(t, "args")
		vars := map[string]string{"A": "x", "PORT": "1"}
		single := make([]string, len(args))
		double := make([]string, len(args))
		for i, arg := range args {
			single[i] = "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
			double[i] = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "$", `\$`, "`", "\\`").Replace(arg) + `"`
		}
		for _, line := range []string{strings.Join(single, " "), strings.Join(double, "\t")} {
			command, err := SplitCommand(line)
			if err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			if got := Expand(command, vars); !slices.Equal(got, args) {
				t.Fatalf("%q: %q, want %q", line, got, args)
			}
		}
	})
}

func FuzzSplitCommand(f *testing.F) {
	for _, s := range []string{"", "a b", "a 'b' \"c\"", `a \$X "$X" ${X}`, "a | b", "X=1 a", "a\nb", "a ${X:-1}", `"`, `\`, "$", "a '$'X"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		command, err := SplitCommand(s)
		if err != nil {
			return
		}
		// Nothing of a value is looked at again, so no argument can become two.
		got := Expand(command, map[string]string{"X": "$X ' \" |"})
		if len(got) != len(command) {
			t.Fatalf("%q: %q of %q", s, got, command)
		}
		if !strings.ContainsAny(s, "'\"\\$|&;<>()`=\n\r\t") && !slices.Equal(got, strings.FieldsFunc(s, func(r rune) bool { return r == ' ' })) {
			t.Fatalf("%q: %q", s, got)
		}
	})
}
