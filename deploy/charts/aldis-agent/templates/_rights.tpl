{{/*
The rules of one scope (`cluster` or `namespace`) as a list, or nothing. What each action needs is not written here: it
is read from files/action-rights.yaml, which is generated from what the agent's code declares. A test holds the outcome
equal to that of `aldis-agent rights` for the same policy.

  include "aldis-agent.rules" (dict "root" $ "scope" "namespace")
*/}}
{{- define "aldis-agent.rules" -}}
{{- $values := .root.Values -}}
{{- $table := .root.Files.Get "files/action-rights.yaml" | fromYaml -}}
{{- $rights := $table.always -}}
{{- range $action, $needed := $table.actions -}}
  {{- $allowed := false -}}
  {{- range $glob := $values.policy.actions -}}
    {{- if regexMatch (printf "^%s$" (regexQuoteMeta $glob | replace "\\*" ".*")) $action -}}
      {{- $allowed = true -}}
    {{- end -}}
  {{- end -}}
  {{- if $allowed -}}{{- $rights = concat $rights $needed -}}{{- end -}}
{{- end -}}
{{- $rules := dict -}}
{{- range $right := $rights -}}
  {{- $choice := $right.choice | default "" -}}
  {{- $granted := or (eq $choice "") (has $choice $values.rights.with) -}}
  {{- if eq $choice "secrets" -}}{{- $granted = not (has "secrets" $values.rights.without) -}}{{- end -}}
  {{- if and $granted (eq $right.scope $.scope) -}}
    {{- $key := printf "%s/%s/%s" $right.apiGroup $right.resource ($right.resourceName | default "") -}}
    {{- $rule := get $rules $key | default (dict "apiGroups" (list $right.apiGroup) "resources" (list $right.resource) "verbs" list) -}}
    {{- if $right.resourceName -}}{{- $_ := set $rule "resourceNames" (list $right.resourceName) -}}{{- end -}}
    {{- $_ := set $rule "verbs" (append $rule.verbs $right.verb | uniq | sortAlpha) -}}
    {{- $_ := set $rules $key $rule -}}
  {{- end -}}
{{- end -}}
{{- $list := list -}}
{{- range $key := keys $rules | sortAlpha -}}{{- $list = append $list (get $rules $key) -}}{{- end -}}
{{- if $list -}}{{- toYaml $list -}}{{- end -}}
{{- end -}}

{{/* `true` where a namespace of the policy is a pattern. */}}
{{- define "aldis-agent.has-patterns" -}}
{{- range .Values.policy.namespaces -}}{{- if contains "*" . -}}true{{- end -}}{{- end -}}
{{- end -}}

{{- define "aldis-agent.subjects" -}}
subjects:
  - kind: ServiceAccount
    name: {{ include "aldis-agent.account" . }}
    namespace: {{ .Release.Namespace }}
{{- end -}}
