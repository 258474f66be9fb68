package object

import (
	"slices"
	"strings"
)

// Nearest is the one of candidates that name was probably meant to be: the same
// but for case, or few letters away; "" if none is near. What is suggested to
// somebody has to be made of candidates that they may know.
func Nearest(name string, candidates []string) string {
	candidates = slices.Sorted(slices.Values(candidates))
	best, least := "", 1+len(name)/4 // one letter in three or less, two in four to seven, and so on
	for _, c := range candidates {
		if strings.EqualFold(c, name) {
			return c
		}
	}
	const longest = 64 // nobody mistypes a longer word and wants to be told
	if len(name) > longest {
		return ""
	}
	for _, c := range candidates {
		if len(c) > longest || c == name {
			continue
		}
		if d := distance(strings.ToLower(name), strings.ToLower(c)); d < least || d == least && best == "" {
			best, least = c, d
		}
	}
	return best
}

// distance is how many letters have to be put in, taken out, changed or swapped
// with their neighbour.
func distance(a, b string) int {
	before, last := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row := make([]int, len(b)+1)
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(row[j]+1, last[j+1]+1, last[j]+cost)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}

// suggest is what to add to an error about a name.
func suggest(name string, candidates []string) string {
	if near := Nearest(name, candidates); near != "" {
		return ", did you mean " + near + "?"
	}
	return ""
}
