{{- define "aldis-control-plane.name" -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{/* The Service that gives each replica a name of its own. */}}
{{- define "aldis-control-plane.replicas" -}}
{{ include "aldis-control-plane.name" . }}-replicas
{{- end -}}

{{- define "aldis-control-plane.selector" -}}
app.kubernetes.io/name: aldis-control-plane
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "aldis-control-plane.labels" -}}
{{ include "aldis-control-plane.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: aldis
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "aldis-control-plane.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/* Paths of certificate, key and CA in a mounted Secret: (dict "folder" "/…" "keys" .Values.tls) */}}
{{- define "aldis-control-plane.files" -}}
certificate: {{ .folder }}/{{ .keys.certificateKey | default "tls.crt" }}
key: {{ .folder }}/{{ .keys.privateKeyKey | default "tls.key" }}
ca: {{ .folder }}/{{ .keys.caKey | default "ca.crt" }}
{{- end -}}
