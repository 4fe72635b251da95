package eif

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxJSONDepth is serde_json's limit on nested arrays and objects, against running out of stack.
const maxJSONDepth = 127

// normalJSON rewrites one JSON value as AWS's tools write it after having read it into serde_json's Value: without
// spaces, keys sorted, of equal keys the last, numbers in their shortest form. Nothing at all becomes null.
func normalJSON(text []byte) ([]byte, error) {
	if len(bytes.TrimSpace(text)) == 0 {
		return []byte("null"), nil
	}
	if !utf8.Valid(text) {
		return nil, fmt.Errorf("the JSON is not in UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return nil, fmt.Errorf("the JSON cannot be read: %w", err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, fmt.Errorf("the JSON goes on after its first value")
	}
	return appendJSON(nil, v, 0)
}

func appendJSON(b []byte, v any, depth int) ([]byte, error) {
	switch v := v.(type) {
	case nil:
		return append(b, "null"...), nil
	case bool:
		return strconv.AppendBool(b, v), nil
	case string:
		return appendJSONString(b, v), nil
	case json.Number:
		return appendJSONNumber(b, string(v))
	}
	if depth == maxJSONDepth {
		return nil, fmt.Errorf("the JSON is nested deeper than %d", maxJSONDepth)
	}
	switch v := v.(type) {
	case []any:
		return appendJSONArray(b, v, depth+1)
	case map[string]any:
		return appendJSONObject(b, v, depth+1)
	}
	return nil, fmt.Errorf("%T is not a JSON value", v)
}

func appendJSONArray(b []byte, list []any, depth int) (_ []byte, err error) {
	b = append(b, '[')
	for i, e := range list {
		if i > 0 {
			b = append(b, ',')
		}
		if b, err = appendJSON(b, e, depth); err != nil {
			return nil, err
		}
	}
	return append(b, ']'), nil
}

func appendJSONObject(b []byte, object map[string]any, depth int) (_ []byte, err error) {
	b = append(b, '{')
	for i, key := range slices.Sorted(maps.Keys(object)) {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendJSONString(b, key), ':')
		if b, err = appendJSON(b, object[key], depth); err != nil {
			return nil, err
		}
	}
	return append(b, '}'), nil
}

// appendJSONString escapes what JSON demands and nothing else; encoding/json also escapes characters that are special
// in HTML and JavaScript.
func appendJSONString(b []byte, s string) []byte {
	b = append(b, '"')
	for _, r := range s { // what is not UTF-8 becomes U+FFFD
		switch r {
		case '"', '\\':
			b = append(b, '\\', byte(r))
		case '\b':
			b = append(b, `\b`...)
		case '\f':
			b = append(b, `\f`...)
		case '\n':
			b = append(b, `\n`...)
		case '\r':
			b = append(b, `\r`...)
		case '\t':
			b = append(b, `\t`...)
		default:
			if r < ' ' {
				b = fmt.Appendf(b, `\u%04x`, r)
			} else {
				b = utf8.AppendRune(b, r)
			}
		}
	}
	return append(b, '"')
}

// appendJSONNumber keeps whole numbers that fit 64 bits, and makes all others a float64.
func appendJSONNumber(b []byte, s string) ([]byte, error) {
	if u, err := strconv.ParseUint(s, 10, 64); err == nil {
		return strconv.AppendUint(b, u, 10), nil
	}
	if i, err := strconv.ParseInt(s, 10, 64); err == nil && i != 0 {
		return strconv.AppendInt(b, i, 10), nil
	}
	f, err := parseSerdeFloat(s)
	if err != nil {
		return nil, err
	}
	return appendSerdeFloat(b, f), nil
}

// parseSerdeFloat computes a JSON number's value as serde_json does by default, which for some numbers is one step off
// the nearest float64: the first digits that fit 64 bits, times or divided by a power of ten.
func parseSerdeFloat(s string) (float64, error) {
	digits, negative := strings.CutPrefix(s, "-")
	mantissa, power, _ := strings.Cut(strings.ToLower(digits), "e")
	exp := 0
	if power != "" {
		e, err := strconv.Atoi(power)
		if err != nil {
			e = math.MaxInt32 // far out of range, with the sign it has
			if power[0] == '-' {
				e = -e
			}
		}
		exp = max(min(e, math.MaxInt32), -math.MaxInt32)
	}
	significand, shift := leadingDigits(mantissa)
	f, err := scale(float64(significand), exp+shift)
	if err != nil {
		return 0, fmt.Errorf("the number %.40s is out of range", s)
	}
	if negative {
		f = -f
	}
	return f, nil
}

// leadingDigits returns the digits of a decimal number as far as they fit 64 bits, and the power of ten to multiply
// them by.
func leadingDigits(mantissa string) (significand uint64, shift int) {
	whole, fraction, _ := strings.Cut(mantissa, ".")
	fits := func(c byte) bool {
		hi, digit := significand, uint64(c-'0')
		return hi < math.MaxUint64/10 || hi == math.MaxUint64/10 && digit <= math.MaxUint64%10
	}
	for i := range len(whole) {
		if !fits(whole[i]) {
			shift = len(whole) - i
			break
		}
		significand = significand*10 + uint64(whole[i]-'0')
	}
	for i := range len(fraction) {
		if !fits(fraction[i]) {
			break
		}
		significand = significand*10 + uint64(fraction[i]-'0')
		shift--
	}
	return significand, shift
}

// scale returns f times ten to the power of exp.
func scale(f float64, exp int) (float64, error) {
	for exp < -308 && f != 0 {
		f /= 1e308
		exp += 308
	}
	switch {
	case f == 0:
		return f, nil
	case exp < 0:
		return f / pow10(-exp), nil
	case exp > 308:
		return 0, strconv.ErrRange
	}
	if f *= pow10(exp); math.IsInf(f, 0) {
		return 0, strconv.ErrRange
	}
	return f, nil
}

// pow10 returns the float64 nearest to ten to the power of n, up to 308; math.Pow10 may be one step off.
func pow10(n int) float64 {
	f, _ := strconv.ParseFloat("1e"+strconv.Itoa(n), 64)
	return f
}

// appendSerdeFloat formats a float64 as serde_json does: the shortest digits that give it back, as a plain decimal
// with at least one digit after the point from 1e-5 up to below 1e16, and with an exponent otherwise.
func appendSerdeFloat(b []byte, f float64) []byte {
	if a := math.Abs(f); f != 0 && (a < 1e-5 || a >= 1e16) {
		s := strconv.FormatFloat(f, 'e', -1, 64)
		mantissa, power, _ := strings.Cut(s, "e")
		n, _ := strconv.Atoi(power) // "+16" and "-05" lose the sign and the zero
		return fmt.Appendf(b, "%se%d", mantissa, n)
	}
	s := strconv.FormatFloat(f, 'f', -1, 64)
	b = append(b, s...)
	if !strings.Contains(s, ".") {
		b = append(b, ".0"...)
	}
	return b
}
