package object

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"bailiwick.dev/bailiwick/tenancy"
)

func namespaceDoc(name string) string {
	return "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: " + name + "\n"
}

func TestSplit(t *testing.T) {
	type doc struct{ index, line int }
	for name, c := range map[string]struct {
		file, text string
		want       []doc
	}{
		"empty":            {"f.yaml", "", nil},
		"comments":         {"f.yaml", "# a\n\n---\n# b\n---\n", nil},
		"one":              {"f.yaml", "a: b\n", []doc{{1, 1}}},
		"leading comment":  {"f.yaml", "# a\n---\na: b\n---\nc: d", []doc{{1, 2}, {2, 4}}},
		"two":              {"f.yaml", "a: b\n---\nc: d\n", []doc{{1, 1}, {2, 2}}},
		"blank in between": {"f.yaml", "a: b\n---\n# nothing\n---\nc: d\n", []doc{{1, 1}, {3, 4}}},
		"end marker":       {"f.yaml", "a: b\n...\n---\nc: d\n...\n", []doc{{1, 1}, {2, 3}}},
		"directive":        {"f.yaml", "%YAML 1.1\n---\na: b\n", []doc{{1, 2}}},
		"on the same line": {"f.yaml", "--- {a: b}\n--- # c\nd: e\n", []doc{{1, 1}, {2, 2}}},
		"Windows lines":    {"f.yaml", "a: b\r\n---\r\nc: d\r\n", []doc{{1, 1}, {2, 2}}},
		"no separator":     {"f.yaml", "a: |\n  x\n  ---\n  y\n---x: y\n", []doc{{1, 1}}},
		"byte order mark":  {"f.yaml", "\xef\xbb\xbfa: b\n", []doc{{1, 1}}},
		"JSON":             {"f.json", "{\"a\": 1}\n\n{\"b\":\n2}", []doc{{1, 1}, {2, 3}}},
		"no JSON at all":   {"f.json", " \n", nil},
	} {
		t.Run(name, func(t *testing.T) {
			docs, err := Split(c.file, []byte(c.text))
			require.NoError(t, err)
			var got []doc
			for _, d := range docs {
				got = append(got, doc{d.Index, d.Line})
				require.Equal(t, c.file, d.File)
			}
			require.Equal(t, c.want, got)
		})
	}
}

func TestLinesAndDocuments(t *testing.T) {
	text := "# head\n---\n" + namespaceDoc("a") + "---\n# more\n" + namespaceDoc("B") + "--- {apiVersion: v1, kind: Namespace, metadata: {name: C}}\n---\na: [\n"
	got := DecodeAll("d/f.yaml", []byte(text), Options{})
	var lines []string
	for _, e := range got.Errors() {
		line, _, _ := strings.Cut(e.Error(), `": a lower`)
		lines = append(lines, line)
	}
	require.Equal(t, []string{
		`d/f.yaml:12: document 2: Namespace: metadata.name: "B`,
		`d/f.yaml:13: document 3: Namespace: metadata.name: "C`,
		`d/f.yaml:15: document 4: cannot be parsed: did not find expected node content`,
	}, lines)
	require.Len(t, got.Events(""), 1)
	require.NotNil(t, got.Unreadable)
}

func TestJSON(t *testing.T) {
	text := "{\"apiVersion\": \"v1\", \"kind\": \"Namespace\",\n\t\"metadata\": {\"name\": \"a\"}}\n{\"apiVersion\": \"v1\",\n\t\"kind\": \"Namespace\",\n\t\"metadata\": {\"name\": \"b\", \"naam\": 1, \"uid\": \"1\", \"uid\": \"2\"}}"
	got := DecodeAll("f.json", []byte(text), Options{})
	require.Len(t, got.Events(""), 1)
	require.Equal(t, []string{
		"f.json:5: document 2: Namespace b: metadata.uid: given twice",
		"f.json:5: document 2: Namespace b: metadata.naam: unknown field, did you mean name?",
	}, []string{got.Errors()[0].Error(), got.Errors()[1].Error()})
	for _, bad := range []string{"{", "{\"a\": }", "{} x", "[1,", "{\"a\":1}}", "{a: b}"} {
		got := DecodeAll("f.json", []byte(bad), Options{})
		require.NotNil(t, got.Unreadable, bad)
	}
}

func TestList(t *testing.T) {
	list := "apiVersion: v1\nkind: List\nmetadata: {resourceVersion: \"\"}\nitems:\n- apiVersion: v1\n  kind: Namespace\n  metadata: {name: a}\n"
	got := DecodeAll("f.yaml", []byte(list+"- apiVersion: v1\n  kind: Namespace\n  metadata:\n    name: B\n    name: c\n- kind: List\n  apiVersion: v1\n- 5\n"), Options{})
	require.Len(t, got.Events(""), 1)
	require.Len(t, got.Entries, 4)
	require.Equal(t, []string{
		"items[1].metadata.name: given twice",
		"items[2].kind: \"List\" of \"v1\" is not read, only Namespace, Service, Pod, EndpointSlice, Tenant, ServiceGrant, ServiceRequest, ClusterServiceGrant, AccessPolicy, ClusterAccessPolicy, PeerTLS and List",
		"items[3]: expected an object, got a number",
	}, texts(got))
	require.Equal(t, 12, got.Errors()[0].Line)
	for bad, want := range map[string]string{
		list + "more: x\n":                       "more: unknown field",
		list + "items: []\n":                     "items: given twice",
		"apiVersion: v1\nkind: List\nitems: a\n": "items: expected a list, got a string",
	} {
		got := DecodeAll("f.yaml", []byte(bad), Options{})
		require.Equal(t, []string{want}, texts(got))
	}
	require.Empty(t, DecodeAll("f.yaml", []byte("apiVersion: v1\nkind: List\nitems:\n"), Options{}).Entries)
}

func TestUnreadable(t *testing.T) {
	var laughs strings.Builder
	laughs.WriteString("a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n")
	for i := range 12 {
		alias := fmt.Sprintf("*a%d", i)
		fmt.Fprintf(&laughs, "a%d: &a%d [%s]\n", i+1, i+1, strings.Repeat(alias+", ", 8)+alias)
	}
	long := "a: &a " + strings.Repeat("x", 100_000) + "\nb: [" + strings.Repeat("*a, ", 100) + "*a]\n"
	for name, c := range map[string]struct{ text, want string }{
		"syntax":             {"a: [", "did not find expected"},
		"tab":                {"a:\n\tb: c\n", "cannot start any token"},
		"two keys":           {"a: b: c\n", "mapping values are not allowed"},
		"UTF-8":              {"a: \xff\n", "invalid UTF-8"},
		"UTF-8 in base64":    {"a: !!binary /w==\n", "base64 of valid UTF-8"},
		"tag":                {"a: !foo b\n", "unknown YAML tag"},
		"key":                {"{[a]: b}\n", "a key has to be a string"},
		"boolean key":        {"on: b\n", "is no string: quote it"},
		"infinite":           {"a: .inf\n", "no finite number"},
		"number by tag":      {"a: !!int 1x\n", "cannot be parsed"},
		"unknown alias":      {"a: *b\n", "unknown anchor"},
		"alias of itself":    {"a: &a [*a]\n", "contains itself"},
		"many aliases":       {laughs.String(), "larger than allowed"},
		"long aliases":       {long, "larger than allowed"},
		"merge of text":      {"a: &a x\nb:\n  <<: *a\n", "takes mappings only"},
		"deep":               {strings.Repeat("[", 100) + strings.Repeat("]", 100), "nested deeper"},
		"very deep":          {strings.Repeat("[", 1_000_000), "max depth"},
		"large document":     {"a: " + strings.Repeat("x", MaxDocument), "longer than 3145728 bytes"},
		"large file":         {strings.Repeat("#\n", MaxFile/2+1), "longer than 16777216 bytes"},
		"text after the end": {"a: b\n...\nc: d\n", "did not find expected <document start>"},
	} {
		t.Run(name, func(t *testing.T) {
			got := DecodeAll("f.yaml", []byte(c.text), Options{})
			require.NotNil(t, got.Unreadable)
			require.Contains(t, got.Unreadable.Message, c.want)
			require.Empty(t, got.Entries)
		})
	}
}

func TestAliasesAndMerges(t *testing.T) {
	got := DecodeAll("f.yaml", []byte(`apiVersion: v1
kind: Pod
metadata:
  name: x
  namespace: &ns ns
  labels: &labels {app: a, tier: b}
  annotations:
    <<: *labels
    app: other
    where: *ns
`), Options{})
	require.Empty(t, texts(got))
	require.Len(t, got.Events(""), 1)
}

// TestManySeparators: splitting takes time in proportion to the file.
func TestManySeparators(t *testing.T) {
	text := bytes.Repeat([]byte("# comment\n"), 400_000)
	text = append(text, bytes.Repeat([]byte("---\n"), 2_000_000)...)
	docs, err := Split("f.yaml", append(text, namespaceDoc("a")...))
	require.NoError(t, err)
	require.Len(t, docs, 1)
}

func TestManyErrors(t *testing.T) {
	var doc strings.Builder
	doc.WriteString(namespaceDoc("a") + "spec:\n")
	for i := range 1000 {
		fmt.Fprintf(&doc, "  f%d: x\n", i)
	}
	got := DecodeAll("f.yaml", []byte(doc.String()), Options{})
	require.Len(t, got.Errors(), maxErrors+1)
	require.Equal(t, "and 968 more errors", got.Errors()[maxErrors].Message)
	require.Empty(t, got.Events(""))
}

// TestMessagesAreOneLine: what a tenant writes cannot forge a line of ours.
func TestMessagesAreOneLine(t *testing.T) {
	for _, doc := range []string{
		"apiVersion: v1\nkind: \"a\\nb\"\nmetadata: {name: \"x\\ny\"}\n",
		"apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n\"spec\\n\\e[31m\": {}\n",
		"apiVersion: v1\nkind: Service\nmetadata: {name: \"\\u2028\", namespace: \"a\\nb\"}\nspec: {type: \"\\n\"}\n",
		"!<tag:\\n> x\n",
	} {
		got := DecodeAll("f.yaml", []byte(doc), Options{})
		require.NotEmpty(t, got.Errors())
		for _, e := range got.Errors() {
			require.NotContains(t, e.Error(), "\n")
			require.NotContains(t, e.Error(), "\x1b")
			require.NotContains(t, e.Error(), "\u2028")
		}
	}
}

func TestMayBe(t *testing.T) {
	decode := func(doc string) *Entry { return DecodeAll("f.yaml", []byte(doc), Options{}).Entries[0] }
	ref := tenancy.Ref{Kind: tenancy.KindService, Key: tenancy.Key{Namespace: "ns", Name: "x"}}
	for doc, want := range map[string]bool{
		"apiVersion: v1\nkind: Servic\n" + head:                               true,
		"apiVersion: v1\nkind: Service\nmetadata: {name: x}\n":                true,
		"apiVersion: v1\nkind: Service\nmetadata: {name: X, namespace: ns}\n": true,
		"hello\n": true,
		"apiVersion: v1\nkind: Servic\nmetadata: {name: z, namespace: ns}\n":     false,
		"apiVersion: v1\nkind: Service\nmetadata: {name: X, namespace: other}\n": false,
		"apiVersion: v1\nkind: Pod\nmetadata: {name: x}\n":                       false,
	} {
		require.Equal(t, want, decode(doc).MayBe(ref), doc)
		require.False(t, decode(doc).Identified)
	}
}
