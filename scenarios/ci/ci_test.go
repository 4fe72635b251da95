// Package ci checks the CI systems' files that stand beside it.
package ci

import (
	"bytes"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/rhysd/actionlint"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	k8syaml "sigs.k8s.io/yaml"
)

func read(t *testing.T, file string) []byte {
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	return text
}

func TestGitHubsWorkflowHasNoMistakes(t *testing.T) {
	linter, err := actionlint.NewLinter(io.Discard, &actionlint.LinterOptions{Color: actionlint.ColorOptionKindNever})
	require.NoError(t, err)
	mistakes, err := linter.Lint("github.yaml", read(t, "github.yaml"), nil)
	require.NoError(t, err)
	require.Empty(t, mistakes)

	broken := bytes.Replace(read(t, "github.yaml"), []byte("needs: build"), []byte("needs: biuld"), 1)
	mistakes, err = linter.Lint("github.yaml", broken, nil)
	require.NoError(t, err)
	require.NotEmpty(t, mistakes, "the linter looks")
}

// gitlabJob has the keywords of a job that gitlab.yaml may use (docs.gitlab.com, "CI/CD YAML syntax reference").
type gitlabJob struct {
	Extends      string              `yaml:"extends"`
	Stage        string              `yaml:"stage"`
	Image        string              `yaml:"image"`
	Needs        []string            `yaml:"needs"`
	Rules        []map[string]string `yaml:"rules"`
	When         string              `yaml:"when"`
	Parallel     int                 `yaml:"parallel"`
	Timeout      string              `yaml:"timeout"`
	BeforeScript []string            `yaml:"before_script"`
	Script       []string            `yaml:"script"`
	Cache        struct {
		Key   string   `yaml:"key"`
		Paths []string `yaml:"paths"`
	} `yaml:"cache"`
	Artifacts struct {
		When     string   `yaml:"when"`
		ExpireIn string   `yaml:"expire_in"`
		Paths    []string `yaml:"paths"`
		Reports  struct {
			JUnit string `yaml:"junit"`
		} `yaml:"reports"`
	} `yaml:"artifacts"`
}

// strictly decodes YAML that has no unknown field.
func strictly(t *testing.T, text []byte, to any) {
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	require.NoError(t, d.Decode(to))
}

func TestGitLabsJobsBelongTogether(t *testing.T) {
	var file struct {
		Variables map[string]string      `yaml:"variables"`
		Stages    []string               `yaml:"stages"`
		Default   struct{ Image string } `yaml:"default"`
		Jobs      map[string]gitlabJob   `yaml:",inline"`
	}
	strictly(t, read(t, "gitlab.yaml"), &file)
	require.NotEmpty(t, file.Default.Image)
	shards := 0
	for name, job := range file.Jobs {
		if job.Extends != "" {
			require.Contains(t, file.Jobs, job.Extends, name)
		}
		for _, rule := range job.Rules {
			for key := range rule {
				require.Contains(t, []string{"if", "when"}, key, name)
			}
		}
		require.Contains(t, []string{"", "always"}, job.When, name)
		require.True(t, job.When == "" || job.Rules == nil, "%s: rules have their own when", name)
		if strings.HasPrefix(name, ".") {
			continue
		}
		require.NotEmpty(t, job.Script, name)
		stage := slices.Index(file.Stages, stageOf(file.Jobs, job))
		require.GreaterOrEqual(t, stage, 0, name)
		for _, need := range job.Needs {
			require.Contains(t, file.Jobs, need, name)
			require.Less(t, slices.Index(file.Stages, stageOf(file.Jobs, file.Jobs[need])), stage, name)
			// A pipeline with this job has to have those that it needs.
			if file.Jobs[need].Rules != nil {
				require.Equal(t, file.Jobs[need].Rules[0]["if"], job.Rules[0]["if"], name)
			}
		}
		if strings.Contains(strings.Join(job.Script, "\n"), "--shard auto") {
			shards++
			require.GreaterOrEqual(t, job.Parallel, 2, name)
			require.Equal(t, "always", job.Artifacts.When, name)
		}
	}
	require.Equal(t, 2, shards)
	require.Equal(t, "report/*.xml", file.Jobs[".report"].Artifacts.Reports.JUnit)
}

func stageOf(jobs map[string]gitlabJob, job gitlabJob) string {
	for range len(jobs) {
		if job.Stage != "" || job.Extends == "" {
			break
		}
		job = jobs[job.Extends]
	}
	return job.Stage
}

func TestKubernetesManifestIsWhatItsTypesSay(t *testing.T) {
	parts := bytes.Split(read(t, "kubernetes.yaml"), []byte("\n---\n"))
	require.Len(t, parts, 3)
	var volume corev1.PersistentVolumeClaim
	var shards, merge batchv1.Job
	require.NoError(t, k8syaml.UnmarshalStrict(parts[0], &volume))
	require.NoError(t, k8syaml.UnmarshalStrict(parts[1], &shards))
	require.NoError(t, k8syaml.UnmarshalStrict(parts[2], &merge))
	require.Error(t, k8syaml.UnmarshalStrict(bytes.Replace(parts[1], []byte("completions:"), []byte("completion:"), 1), &batchv1.Job{}))
	require.Equal(t, "PersistentVolumeClaim", volume.Kind)

	n := int(*shards.Spec.Completions)
	require.Equal(t, batchv1.IndexedCompletion, *shards.Spec.CompletionMode)
	pod := shards.Spec.Template.Spec
	require.Equal(t, []corev1.EnvVar{{Name: "NESIM_SHARDS", Value: strconv.Itoa(n)}}, pod.Containers[0].Env)
	require.True(t, *merge.Spec.Suspend)
	var merged []string
	for _, arg := range merge.Spec.Template.Spec.Containers[0].Command {
		if strings.HasSuffix(arg, ".json") {
			merged = append(merged, arg)
		}
	}
	require.Len(t, merged, n)
	for i, file := range merged {
		require.Equal(t, "/reports/"+strconv.Itoa(i)+".json", file)
	}

	for _, job := range []batchv1.Job{shards, merge} {
		require.Equal(t, "Job", job.Kind)
		require.Equal(t, "batch/v1", job.APIVersion)
		pod := job.Spec.Template.Spec
		require.Equal(t, corev1.RestartPolicyNever, pod.RestartPolicy)
		require.True(t, *pod.SecurityContext.RunAsNonRoot)
		require.False(t, pod.HostNetwork || pod.HostPID || pod.HostIPC)
		require.Equal(t, volume.Name, pod.Volumes[0].PersistentVolumeClaim.ClaimName)
		for _, c := range pod.Containers {
			require.Nil(t, c.SecurityContext.Privileged)
			require.False(t, *c.SecurityContext.AllowPrivilegeEscalation)
			require.True(t, *c.SecurityContext.ReadOnlyRootFilesystem)
			require.NotEmpty(t, c.Resources.Requests)
			for _, mount := range c.VolumeMounts {
				require.True(t, slices.ContainsFunc(pod.Volumes, func(v corev1.Volume) bool { return v.Name == mount.Name }), mount.Name)
			}
		}
	}
}
