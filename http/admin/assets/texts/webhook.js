// One webhook.
import { add } from '../texts.js'

add({
  'tab.health': ['Здоровье', 'Health'],
  'tab.deliveries': ['Доставки', 'Deliveries'],
  'tab.settings': ['Настройки', 'Settings'],
  'tab.disclosures': ['Передачи', 'Disclosures'],
  'why.off': ['Вебхук выключен: вызовов нет.', 'The webhook is inactive: no calls are made.'],
  'why.waits': ['Ждёт {0} доставка; когда получатель ответит, она уйдёт сама.|Ждут {0} доставки; когда получатель ответит, они уйдут сами.|Ждут {0} доставок; когда получатель ответит, они уйдут сами.', '{0} delivery waits and goes out by itself once the receiver answers.|{0} deliveries wait and go out by themselves once the receiver answers.'],
  'why.row': ['{0} вызов подряд не удался|{0} вызова подряд не удались|{0} вызовов подряд не удались', '{0} call in a row has failed|{0} calls in a row have failed'],
  'why.never': ['Успешных вызовов ещё не было.', 'No call has succeeded yet.'],
  'why.lastCall': ['Последняя неудача', 'The last failure'],
  'webhook.short': ['Настройки кратко', 'Settings in short'],
  'webhook.previous': ['прежний секрет действует до', 'the previous secret signs until'],
  'webhook.retries': ['Повторы и таймаут', 'Retries and timeout'],
  'webhook.noRetries': ['без повторов; таймаут {2} с', 'no retries; timeout {2} s'],
  'webhook.retriesOf': ['повторов {0}, первый через {1} с; таймаут {2} с', 'retries: {0}, the first after {1} s; timeout {2} s'],
  'webhook.retry': ['Повторить недоставленное', 'Retry undelivered'],
  'webhook.retryAsk': ['Повторить {0} доставку?|Повторить {0} доставки?|Повторить {0} доставок?', 'Retry {0} delivery?|Retry {0} deliveries?'],
  'webhook.retryNote': ['Получатель увидит эти события с прежними идентификаторами доставок.', 'The receiver sees these events under the delivery ids that they had.'],
  'webhook.jobs': ['Что отправлялось повторно', 'What was sent again'],
  'webhook.nothingFailed': ['Недоставленного нет.', 'Nothing is undelivered.'],
  'stats.retriesOf': ['из них {0} повтор|из них {0} повтора|из них {0} повторов', '{0} of them a retry|{0} of them retries'],
  'stats.failedOf': ['неудачных {0}', '{0} failed'],
  'stats.timeoutsOf': ['{0} таймаут|{0} таймаута|{0} таймаутов', '{0} timeout|{0} timeouts'],
  'disclosure.none': ['Ничьи данные сюда не передавались.', 'Nobody’s data was sent here.'],
})
