{{- define "webhooks.labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}
{{- define "webhooks.check" -}}
{{- $roles := list }}
{{- range .Values.nodes }}{{ $roles = concat $roles (splitList "," (.roles | nospace)) }}{{ end }}
{{- range list "api" "saga" "worker" "projections" }}
{{- if not (has . $roles) }}{{ fail (printf "nodes: no group has the role %s" .) }}{{ end }}
{{- end }}
{{- end }}
