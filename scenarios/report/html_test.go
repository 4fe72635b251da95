package report

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/require"

	"github.com/nesim/nesim/scenarios/trace"
)

// patience is for a browser on a slow and busy machine.
const patience = 3 * time.Minute

func TestTimelineInABrowser(t *testing.T) {
	browser := startBrowser(t)
	for _, test := range []struct {
		name string
		run  *trace.Run
		test func(p *page)
	}{
		{"draws a lane for every kind of entry", sample(), lanes},
		{"zooms and pans", sample(), zooming},
		{"shows an entry's detail", sample(), entryDetail},
		{"changes between scenarios", sample(), choosing},
		{"goes to the failing step", sample(), failingStep},
		{"keeps hostile text as text", saying(hostile), hostileText},
		{"is fine without results", &trace.Run{}, nothing},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := open(t, browser, test.run)
			test.test(p)
			p.requireQuiet()
		})
	}
}

func lanes(p *page) {
	// A failed scenario is chosen first; its lanes are in the order of what they tell.
	require.Equal(p.t, "refuses", p.text("#name"))
	drawn := eval[[]string](p, `rows.map(row => row.kind)`)
	require.Len(p.t, drawn, len(kinds))
	for n, kind := range kinds {
		require.Equal(p.t, string(kind), drawn[n])
		require.NotEmpty(p.t, eval[string](p, fmt.Sprintf(`titles[rows[%d].kind]`, n)))
		// Its marks are seen in its colour; a step's bar is washed out, and has the colour of how it went at its edge.
		p.until(fmt.Sprintf(`(() => {
			const row = rows[%d], ratio = devicePixelRatio, y = axis + %[1]d * rowHeight + rowHeight / 2;
			const colour = row.kind === "step" ? palette.failed : palette[row.kind];
			const wanted = [1, 3, 5].map(n => parseInt(colour.slice(n, n + 2), 16));
			const copy = new OffscreenCanvas(width() * ratio, 1).getContext("2d", {willReadFrequently: true});
			copy.drawImage(canvas, -gutter * ratio, -y * ratio);
			const seen = copy.getImageData(0, 0, copy.canvas.width, 1).data;
			for (let i = 0; i < seen.length; i += 4) if (wanted.every((v, n) => v === seen[i + n])) return true;
			return false;
		})()`, n), "%s has no marks", kind)
	}
}

func zooming(p *page) {
	const span = `(canvas.dataset.to - canvas.dataset.from)`
	type state struct {
		Span, From float64
		Marks      int
		Range      string
	}
	now := func() state {
		return eval[state](p, `({Span: `+span+`, From: Number(canvas.dataset.from), Marks: Number(canvas.dataset.marks), Range: $("range").textContent})`)
	}
	p.until(span+` > 0`, "nothing is drawn")
	all := now()
	require.Contains(p.t, all.Range, "44 entries")

	p.click("#in")
	p.click("#in")
	p.until(fmt.Sprintf(span+` < %f / 2`, all.Span), "not zoomed in")
	in := now()
	require.Less(p.t, in.Marks, all.Marks)
	require.NotContains(p.t, in.Range, "44 entries")

	p.do(chromedp.Evaluate[chromedp.Void](`canvas.focus()`))
	p.do(chromedp.KeyEvent(kb.PageDown))
	p.until(fmt.Sprintf(`canvas.dataset.from > %f`, in.From), "not panned")
	require.InDelta(p.t, in.Span, now().Span, 1)

	p.click("#out")
	p.until(fmt.Sprintf(span+` > %f * 1.1`, in.Span), "not zoomed out")
	p.click("#fit")
	p.until(fmt.Sprintf(span+` === %f`, all.Span), "not all is shown")
	require.Equal(p.t, all, now())

	x, y := p.entry(20)
	turned := func(m *input.DispatchMouseEventParams) { m.DeltaX, m.DeltaY = 0.01, -400 } // a delta of 0 would not be sent
	p.do(chromedp.MouseEvent(chromedp.MouseWheel, x, y, turned))
	p.until(fmt.Sprintf(span+` < %f / 2`, all.Span), "the wheel does not zoom")

	p.click("#byorder")
	p.until(`$("range").textContent === "44 of 44 entries in sight"`, "not in order")
}

func entryDetail(p *page) {
	for _, i := range []int{1, 20, 43} {
		x, y := p.entry(i)
		want := sample().Results[1].Entries[i].Text
		p.do(chromedp.MouseEvent(chromedp.MouseMoved, x, y))
		p.until(fmt.Sprintf(`!$("tip").hidden && $("tip").textContent.endsWith(%q)`, want), "no tip tells of %s", want)
		p.do(chromedp.MouseClickXY(x, y))
		p.until(fmt.Sprintf(`$("details").textContent.endsWith(%q)`, want), "no detail tells of %s", want)
		p.until(`document.querySelector("#rows [aria-selected=true]").textContent.includes(entries[chosen].text)`, "the trace's line is not marked")
	}
	require.Regexp(p.t, `^\+0\.989000 s · Notes · device · step 2: step 2`, p.text("#details"))
	p.do(chromedp.Evaluate[chromedp.Void](`canvas.focus()`))
	p.do(chromedp.KeyEvent(kb.ArrowLeft))
	p.until(`$("details").textContent.endsWith("note 32")`, "the arrow does not go to the entry before")
}

func choosing(p *page) {
	require.Equal(p.t, []string{"boots", "refuses", "cannot run", "left out"}, p.listed())
	p.click("#list li:nth-child(1) button")
	p.until(`$("name").textContent === "boots" && $("status").textContent === "passed"`, "another scenario is not shown")
	require.Contains(p.t, p.text("#meta"), "seed 18446744073709551615")
	require.True(p.t, strings.HasSuffix(get(p, chromedp.Location()), "#1"))

	p.click("#list li:nth-child(3) button")
	p.until(`$("name").textContent === "cannot run" && $("error").textContent === "no QEMU"`, "another scenario is not shown")
	require.Equal(p.t, "Nothing was recorded.", p.text("#details"))

	p.do(chromedp.SendKeys(chromedp.CSS("#search"), "left"))
	p.until(`$("found").textContent === "1 of 4 scenarios"`, "not searched")
	require.Equal(p.t, []string{"left out"}, p.listed())
	p.do(chromedp.SendKeys(chromedp.CSS("#search"), "\b\b\b\b"))
	p.click("#filter [data-status=failed]")
	p.until(`$("found").textContent === "1 of 4 scenarios"`, "not filtered")
	require.Equal(p.t, []string{"refuses"}, p.listed())
}

func failingStep(p *page) {
	require.Equal(p.t, "no reply within 2s", p.text("#error"))
	p.click("#fail")
	p.until(`entries[chosen] && entries[chosen].step === 2`, "its first entry is not chosen")
	p.until(`canvas.dataset.from > 0`, "it is not zoomed to")
	p.click("#steps li:nth-child(1) button")
	p.until(`entries[chosen].step === 1 && canvas.dataset.from === "0"`, "a step is not gone to")
}

func hostileText(p *page) {
	for n := 1; n <= 4; n++ {
		p.click(fmt.Sprintf("#list li:nth-child(%d) button", n))
		p.until(fmt.Sprintf(`current === %d && $("name").textContent.includes("</script><script>document.title")`, n-1), "its name is not shown")
	}
	p.click("#list li:nth-child(2) button")
	x, y := p.entry(20)
	p.do(chromedp.MouseEvent(chromedp.MouseMoved, x, y), chromedp.MouseClickXY(x, y))
	for _, id := range []string{"tip", "details", "error", "steps", "meta", "description"} {
		p.until(fmt.Sprintf(`$(%q).textContent.includes("<img src=x onerror=")`, id), "%s does not show it", id)
	}
	require.Equal(p.t, 2, eval[int](p, `document.querySelectorAll("img, script").length`)) // its own scripts
	require.False(p.t, eval[bool](p, `"owned" in window`))
	require.False(p.t, eval[bool](p, `/[\u0000-\u0009\u000b-\u001f\u202e]/.test(document.querySelector("main").innerText)`))
}

func nothing(p *page) {
	require.Contains(p.t, p.text("#run"), "0 scenarios")
	p.until(`document.querySelector("main").hidden`, "there is something to see")
}

// page is a report in a tab of its own, with all that it asks for and all it complains of.
type page struct {
	t    *testing.T
	ctx  context.Context
	file string

	mu       sync.Mutex
	requests []string
	problems []string
}

func open(t *testing.T, browser context.Context, run *trace.Run) *page {
	ctx, closeTab := chromedp.NewContext(browser)
	t.Cleanup(closeTab)
	ctx, stop := context.WithTimeout(ctx, patience)
	t.Cleanup(stop)
	p := &page{t: t, ctx: ctx, file: "file://" + filepath.Join(t.TempDir(), "report.html")}
	require.NoError(t, os.WriteFile(strings.TrimPrefix(p.file, "file://"), []byte(write(t, "html", run)), 0o644))
	require.NoError(t, chromedp.Listen(ctx, p.hear))
	_, err := chromedp.Call(ctx, network.Enable, network.EnableParams{})
	require.NoError(t, err)
	_, err = chromedp.Call(ctx, log.Enable, cdp.Empty{})
	require.NoError(t, err)
	p.do(chromedp.EmulateViewport(1400, 1200), chromedp.Navigate(p.file))
	p.until(`document.readyState === "complete" && typeof canvas === "object"`, "the page does not load")
	return p
}

func (p *page) hear(event any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		if !strings.HasPrefix(e.Request.URL, "data:") {
			p.requests = append(p.requests, e.Request.URL)
		}
	case *runtime.EventExceptionThrown:
		p.problems = append(p.problems, e.ExceptionDetails.Text)
	case *runtime.EventConsoleAPICalled:
		p.problems = append(p.problems, "console."+string(e.Type))
	case *log.EventEntryAdded:
		p.problems = append(p.problems, e.Entry.Text)
	}
}

func (p *page) requireQuiet() {
	p.t.Helper()
	eval[float64](p, `performance.now()`) // what happened before it is heard of by then
	p.mu.Lock()
	defer p.mu.Unlock()
	require.Equal(p.t, []string{p.file}, p.requests)
	require.Empty(p.t, p.problems)
}

func (p *page) do(actions ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	require.NoError(p.t, chromedp.Do(p.ctx, actions...))
}

func (p *page) click(selector string) { p.t.Helper(); p.do(chromedp.Click(chromedp.CSS(selector))) }

// get does an action for what it gives.
func get[T any](p *page, action chromedp.Action[T]) T {
	p.t.Helper()
	value, err := chromedp.Run(p.ctx, action)
	require.NoError(p.t, err)
	return value
}

func eval[T any](p *page, script string) T {
	p.t.Helper()
	return get(p, chromedp.Evaluate[T](script))
}

// until waits for a condition.
func (p *page) until(condition, otherwise string, args ...any) {
	p.t.Helper()
	require.Eventually(p.t, func() bool {
		met, err := chromedp.Run(p.ctx, chromedp.Evaluate[bool](`Boolean(`+condition+`)`))
		return err == nil && met
	}, patience, 20*time.Millisecond, append([]any{otherwise}, args...)...)
}

func (p *page) text(selector string) string {
	p.t.Helper()
	return get(p, chromedp.TextContent(chromedp.CSS(selector)))
}

// listed is the names in the list of scenarios.
func (p *page) listed() []string {
	p.t.Helper()
	return eval[[]string](p, `buttons.filter(b => !b.parentNode.hidden).map(b => b.children[1].textContent)`)
}

// entry is where an entry of the chosen scenario is on the screen.
func (p *page) entry(i int) (x, y float64) {
	p.t.Helper()
	at := eval[[2]float64](p, fmt.Sprintf(`(() => {
		document.querySelector("main").scrollTop = 0;
		const box = canvas.getBoundingClientRect(), row = rows.findIndex(row => row.list.includes(%d));
		return [box.left + x(at(%[1]d)), box.top + axis + row * rowHeight + rowHeight / 2];
	})()`, i))
	return at[0], at[1]
}

// startBrowser starts a headless Chromium with a profile of its own, which ends with the test.
func startBrowser(t *testing.T) context.Context {
	profile := t.TempDir()
	alloc, end := chromedp.NewExecAllocator(context.Background(),
		chromedp.ExecPath(findChromium(t)),
		chromedp.UserDataDir(profile),
		chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU, chromedp.NoFirstRun,
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-sync", true),
		chromedp.Flag("disable-dev-shm-usage", true),
		chromedp.Env("HOME="+profile),
	)
	browser, stop := chromedp.NewContext(alloc)
	t.Cleanup(func() {
		_ = chromedp.Cancel(browser) // lets it end by itself
		stop()
		end()
		// Its helpers may outlive it, and write, for a moment.
		require.Eventually(t, func() bool { return os.RemoveAll(profile) == nil }, patience, 20*time.Millisecond)
	})
	require.NoError(t, chromedp.Do(browser), "Chromium does not start")
	return browser
}

// findChromium looks where qemu/setup/fetch.sh does and has put one.
func findChromium(t *testing.T) string {
	t.Helper()
	named, set := os.LookupEnv("NESIM_CHROMIUM")
	if set && named != "" {
		return named
	}
	names := []string{"chromium", "chromium-browser", "google-chrome"}
	if cache := os.Getenv("NESIM_CACHE"); cache != "" {
		names = append(names, filepath.Join(cache, "chromium/chromium"))
	} else {
		names = append(names, "../../.cache/chromium/chromium")
	}
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			path, err = filepath.Abs(path)
			require.NoError(t, err)
			return path
		}
	}
	require.FailNow(t, "no Chromium found to open the HTML report in: run `make samples`, or set NESIM_CHROMIUM to one")
	return ""
}
