package deploy

import (
	"encoding/pem"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	psa "k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"

	"github.com/tidemarkhq/tidemark/proxy/config"
)

// kinds are the Kubernetes API types that manifests are made of.
var kinds = func() *runtime.Scheme {
	s := runtime.NewScheme()
	utilruntime.Must(appsv1.AddToScheme(s))
	utilruntime.Must(batchv1.AddToScheme(s))
	utilruntime.Must(corev1.AddToScheme(s))
	return s
}()

// strict refuses fields that a type does not have, and fields given twice.
var strict = serializer.NewCodecFactory(kinds, serializer.EnableStrict).UniversalDeserializer()

// render does what `kubectl kustomize` does.
func render(t *testing.T, dir string) string {
	t.Helper()
	m, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), filepath.Join("kubernetes", dir))
	if err != nil {
		t.Fatal(err)
	}
	text, err := m.AsYaml()
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// decode turns a manifest into objects of the Kubernetes API.
func decode(manifest string) (objects []runtime.Object, err error) {
	for text := range strings.SplitSeq(manifest, "\n---\n") {
		object, _, err := strict.Decode([]byte(text), nil, nil)
		if err != nil {
			return nil, err
		}
		objects = append(objects, object)
	}
	return objects, nil
}

// workload is a pod that a controller makes, and the configuration beside it.
type workload struct {
	name       string
	pod        corev1.PodTemplateSpec
	job        bool
	configMaps map[string]map[string]string
}

func workloads(objects []runtime.Object) (all []workload) {
	configMaps := map[string]map[string]string{}
	for _, object := range objects {
		switch o := object.(type) {
		case *corev1.ConfigMap:
			configMaps[o.Name] = o.Data
		case *appsv1.Deployment:
			all = append(all, workload{name: o.Name, pod: o.Spec.Template})
		case *appsv1.StatefulSet:
			all = append(all, workload{name: o.Name, pod: o.Spec.Template})
		case *batchv1.CronJob:
			all = append(all, workload{name: o.Name, pod: o.Spec.JobTemplate.Spec.Template, job: true})
		}
	}
	for i := range all {
		all[i].configMaps = configMaps
	}
	return all
}

// faults returns what is wrong with a manifest.
func faults(manifest string) error {
	objects, err := decode(manifest)
	if err != nil {
		return err
	}
	var all []error
	found := workloads(objects)
	for _, w := range found {
		for _, err := range []error{w.restricted(), w.tidemark()} {
			if err != nil {
				all = append(all, fmt.Errorf("%s: %w", w.name, err))
			}
		}
	}
	if len(found) == 0 {
		all = append(all, errors.New("nothing runs"))
	}
	return errors.Join(all...)
}

// restricted applies the pod security standard of this name, as the API server does.
func (w workload) restricted() error {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		return err
	}
	level := psa.LevelVersion{Level: psa.LevelRestricted, Version: psa.LatestVersion()}
	result := policy.AggregateCheckResults(evaluator.EvaluatePod(level, &w.pod.ObjectMeta, &w.pod.Spec))
	if !result.Allowed {
		return errors.New(result.ForbiddenDetail())
	}
	return nil
}

// tidemark checks the container that Tidemark runs in.
func (w workload) tidemark() error {
	spec := w.pod.Spec
	containers := spec.InitContainers
	if w.job {
		containers = spec.Containers
	}
	at := slices.IndexFunc(containers, func(c corev1.Container) bool {
		return strings.Contains(c.Image, "tidemark")
	})
	if at < 0 {
		return errors.New("there is no Tidemark")
	}
	c := containers[at]
	var all []error
	must := func(ok bool, what string) {
		if !ok {
			all = append(all, errors.New(what))
		}
	}
	must(spec.EnableServiceLinks != nil && !*spec.EnableServiceLinks, "enableServiceLinks is not false")
	root := c.SecurityContext.ReadOnlyRootFilesystem
	must(root != nil && *root, "its root is not read-only")
	memory := c.Resources.Limits.Memory()
	must(!memory.IsZero() && memory.Equal(*c.Resources.Requests.Memory()), "it is not promised the memory that it may use")
	must(!c.Resources.Requests.Cpu().IsZero(), "it is promised no processor time")
	must(c.Resources.Limits.Cpu().IsZero(), "its processor time is limited")
	if w.job {
		must(slices.Equal(c.Args, []string{"repair"}), "it does not repair")
		must(spec.RestartPolicy == corev1.RestartPolicyNever, "a job that is over starts again")
	} else {
		all = append(all, sidecar(c)...)
	}
	for _, m := range c.VolumeMounts {
		mounted := slices.ContainsFunc(spec.Volumes, func(v corev1.Volume) bool { return v.Name == m.Name && v.Secret != nil })
		must(mounted && m.ReadOnly, "volume "+m.Name+" is no Secret, or it can be written to")
	}
	return errors.Join(append(all, w.configuration(c))...)
}

// sidecar checks what makes a container start before the others and stop after
// them, and when it counts as started, ready and dead.
func sidecar(c corev1.Container) (all []error) {
	if c.RestartPolicy == nil || *c.RestartPolicy != corev1.ContainerRestartPolicyAlways {
		all = append(all, errors.New("it is no sidecar"))
	}
	for probe, p := range map[string]struct {
		is   *corev1.Probe
		path string
	}{"startup": {c.StartupProbe, "/livez"}, "liveness": {c.LivenessProbe, "/livez"}, "readiness": {c.ReadinessProbe, "/readyz"}} {
		if p.is == nil || p.is.HTTPGet == nil || p.is.HTTPGet.Path != p.path {
			all = append(all, fmt.Errorf("the %s probe does not ask %s", probe, p.path))
			continue
		}
		named := slices.ContainsFunc(c.Ports, func(port corev1.ContainerPort) bool {
			return port.Name == p.is.HTTPGet.Port.StrVal && port.ContainerPort == 9840
		})
		if !named {
			all = append(all, fmt.Errorf("the %s probe asks another port than 9840", probe))
		}
	}
	return all
}

// configuration has Tidemark read the environment of its container.
func (w workload) configuration(c corev1.Container) error {
	var environ []string
	for _, from := range c.EnvFrom {
		data, ok := w.configMaps[from.ConfigMapRef.Name]
		if !ok {
			return fmt.Errorf("there is no ConfigMap %s", from.ConfigMapRef.Name)
		}
		for key, value := range data {
			environ = append(environ, key+"="+value)
		}
	}
	named := false
	for _, v := range c.Env {
		if v.ValueFrom != nil {
			if v.ValueFrom.FieldRef == nil || v.ValueFrom.FieldRef.FieldPath != "metadata.name" {
				return fmt.Errorf("%s does not come from the pod's name", v.Name)
			}
			v.Value = "pod-0"
		}
		named = named || v.Name == "TIDEMARK_INSTANCE"
		environ = append(environ, v.Name+"="+v.Value)
	}
	if !named && !w.job {
		return errors.New("it does not know its name")
	}
	environ, remove, err := mount(c, environ)
	if err != nil {
		return err
	}
	defer remove()
	_, err = config.Load(environ)
	return err
}

// mount puts files of a Secret into a directory, as the kubelet does.
func mount(c corev1.Container, environ []string) (mounted []string, remove func(), err error) {
	dir, err := os.MkdirTemp("", "secret")
	if err != nil {
		return nil, nil, err
	}
	for _, v := range environ {
		key, value, _ := strings.Cut(v, "=")
		for _, m := range c.VolumeMounts {
			if name, ok := strings.CutPrefix(value, m.MountPath+"/"); ok {
				content := []byte("secret")
				if strings.HasSuffix(name, ".crt") {
					content = authority()
				}
				value = filepath.Join(dir, name)
				err = errors.Join(err, os.WriteFile(value, content, 0o600))
			}
		}
		mounted = append(mounted, key+"="+value)
	}
	return mounted, func() { os.RemoveAll(dir) }, err
}

// authority is a certificate, as PEM.
var authority = sync.OnceValue(func() []byte {
	s := httptest.NewTLSServer(nil)
	defer s.Close()
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
})

func TestKubernetes(t *testing.T) {
	for _, dir := range []string{"billing", "billing-secured", "testdata/statefulset"} {
		t.Run(dir, func(t *testing.T) {
			if err := faults(render(t, dir)); err != nil {
				t.Error(err)
			}
		})
	}
	after, err := os.ReadFile("kubernetes/billing/after.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := faults(string(after)); err != nil {
		t.Error("after.yaml:", err)
	}
}

// A manifest that breaks is noticed.
func TestKubernetesFaults(t *testing.T) {
	manifest := render(t, "billing-secured")
	for _, broken := range []struct{ was, is string }{
		{"restartPolicy: Always", "restartPolicy: OnFailure"},
		{"restartPolicy: Always", "restartPolicies: Always"},
		{"path: /readyz", "path: /livez"},
		{"path: /livez", "path: /readyz"},
		{"containerPort: 9840", "containerPort: 9841"},
		{"readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false"},
		{"runAsNonRoot: true", "runAsNonRoot: false"},
		{"runAsUser: 65532", "runAsUser: 0"},
		{"type: RuntimeDefault", "type: Unconfined"},
		{"- ALL", "- NET_RAW"},
		{"allowPrivilegeEscalation: false", "allowPrivilegeEscalation: true"},
		{"enableServiceLinks: false", "enableServiceLinks: true"},
		{"cpu: 100m", "cpu: 100x"},
		{"memory: 512Mi", "memory: 256Mi"},
		{"fieldPath: metadata.name", "fieldPath: metadata.namespace"},
		{"name: TIDEMARK_INSTANCE", "name: TIDEMARK_INSTANZ"},
		{"TIDEMARK_TOPICS:", "TIDEMARK_TOPIC:"},
		{"TIDEMARK_MAX_OUT_OF_ORDERNESS: 5s", "TIDEMARK_MAX_OUT_OF_ORDERNESS: 5"},
		{"TIDEMARK_SASL_PASSWORD_FILE: /etc/tidemark/kafka/", "TIDEMARK_SASL_PASSWORD_FILE: /etc/kafka/"},
		{"- repair\n", "- verify\n"},
		{"readOnly: true", "readOnly: false"},
		{"secretName: tidemark-kafka", "secretNames: tidemark-kafka"},
		{"image: registry.example.com/tidemark:1.0", "image: registry.example.com/other:1.0"},
	} {
		if !strings.Contains(manifest, broken.was) {
			t.Errorf("there is no %q", broken.was)
		}
		if faults(strings.Replace(manifest, broken.was, broken.is, 1)) == nil {
			t.Errorf("nobody notices %q in place of %q", broken.is, broken.was)
		}
	}
}

// after.yaml is what the component makes of before.yaml.
func TestKubernetesAfter(t *testing.T) {
	text, err := os.ReadFile("kubernetes/billing/after.yaml")
	if err != nil {
		t.Fatal(err)
	}
	after, err := decode(string(text))
	if err != nil {
		t.Fatal(err)
	}
	made, err := decode(render(t, "billing"))
	if err != nil {
		t.Fatal(err)
	}
	made = slices.DeleteFunc(made, func(o runtime.Object) bool { _, job := o.(*batchv1.CronJob); return job })
	for _, o := range made {
		unhashed(o)
	}
	if a, b := sorted(t, made), sorted(t, after); a != b {
		t.Errorf("made is\n%s\nwritten down is\n%s", a, b)
	}
}

// sorted writes objects down, in an order and with fields in an order.
func sorted(t *testing.T, objects []runtime.Object) string {
	t.Helper()
	var texts []string
	for _, o := range objects {
		text, err := yaml.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, string(text))
	}
	slices.Sort(texts)
	return strings.Join(texts, "---\n")
}

// unhashed takes back what Kustomize appends to the name of a ConfigMap, so that
// pods are replaced when it changes.
func unhashed(object runtime.Object) {
	plain := func(name string) string {
		if strings.HasPrefix(name, "tidemark-") {
			return "tidemark"
		}
		return name
	}
	switch o := object.(type) {
	case *corev1.ConfigMap:
		o.Name = plain(o.Name)
	case *appsv1.Deployment:
		for _, c := range o.Spec.Template.Spec.InitContainers {
			for _, from := range c.EnvFrom {
				from.ConfigMapRef.Name = plain(from.ConfigMapRef.Name)
			}
		}
	}
}

// The component leaves what it adds to as it was, and comes before it.
func TestKubernetesStatefulSet(t *testing.T) {
	objects, err := decode(render(t, "testdata/statefulset"))
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range workloads(objects) {
		var names []string
		for _, c := range slices.Concat(w.pod.Spec.InitContainers, w.pod.Spec.Containers) {
			names = append(names, c.Name)
		}
		for _, v := range w.pod.Spec.Volumes {
			names = append(names, v.Name)
		}
		if got, want := strings.Join(names, " "), "tidemark migrate proxy ledger tidemark-kafka cache"; got != want {
			t.Errorf("the pod has %s, want %s", got, want)
		}
	}
}

// docs/kubernetes.md shows the files themselves.
func TestKubernetesDocs(t *testing.T) {
	doc, err := os.ReadFile("../docs/kubernetes.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"kubernetes/billing/kustomization.yaml", "kubernetes/billing-secured/kustomization.yaml"} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(doc), "```yaml\n"+string(text)+"```") {
			t.Errorf("docs/kubernetes.md does not show %s as it is", name)
		}
	}
}
