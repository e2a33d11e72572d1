{{/* The name of everything: the release's, with the chart's where that does not say it. */}}
{{- define "parkingd.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* What selects the nodes, and nothing else. It cannot be changed later. */}}
{{- define "parkingd.selectorLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "parkingd.labels" -}}
{{ include "parkingd.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* The pod of `helm test` must not be selected as a node. */}}
{{- define "parkingd.testLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}-test
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "parkingd.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{/* The Secret with the cookie. None is invented: the next rendering would invent another. */}}
{{- define "parkingd.cookieSecret" -}}
{{- if not .Values.cookie.existingSecret -}}
{{- fail (printf "\n\ncookie.existingSecret is not set. Make the Secret once, and name it:\n\n  kubectl --namespace %s create secret generic parkingd-cookie --from-literal=cookie=\"$(openssl rand -hex 32)\"\n  helm ... --set cookie.existingSecret=parkingd-cookie\n" .Release.Namespace) -}}
{{- end -}}
{{- .Values.cookie.existingSecret -}}
{{- end -}}

{{/* The car park's name. The control socket's path has room for 81 bytes of it and a pod's name. */}}
{{- define "parkingd.cluster" -}}
{{- $shown := .Values.cluster.name | default (printf "%s.%s" .Release.Namespace (include "parkingd.fullname" .)) -}}
{{- $pod := printf "%s-%d" (include "parkingd.fullname" .) (sub (int .Values.replicaCount) 1) -}}
{{- if or (gt (len $shown) 63) (gt (add (len $shown) (len $pod)) 81) -}}
{{- fail (printf "\n\nThe car park's name %s is too long: give a shorter one as cluster.name\n" $shown) -}}
{{- end -}}
{{- .Values.cluster.name | default (printf "$(POD_NAMESPACE).%s" (include "parkingd.fullname" .)) -}}
{{- end -}}

{{/* The configuration file: what the chart relies on, then what config says. JSON's scalars are
     TOML's too. */}}
{{- define "parkingd.config" -}}
{{- $fixed := dict "port" 7744 "mdns" false "ops" "0.0.0.0:9744" "log_format" "json" -}}
{{- range $key, $value := mergeOverwrite $fixed (deepCopy .Values.config) }}
{{ $key }} = {{ $value | toJson }}
{{- end }}
{{- end -}}
