{{/* The release's name: every object is called so, and a cluster has one agent. */}}
{{- define "aldis-agent.name" -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{- define "aldis-agent.account" -}}
{{- .Values.serviceAccount.name | default (include "aldis-agent.name" .) -}}
{{- end -}}

{{- define "aldis-agent.selector" -}}
app.kubernetes.io/name: aldis-agent
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "aldis-agent.labels" -}}
{{ include "aldis-agent.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: aldis
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "aldis-agent.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}
