// The frame, and the common components.
import { add } from '../texts.js'

add({
  'nav.overview': ['Обзор', 'Overview'],
  'app.copy': ['Скопировать: {0}', 'Copy {0}'],
  'app.copied': ['Скопировано', 'Copied'],
  'app.again': ['Повторить', 'Try again'],
  'app.type': ['Чтобы подтвердить, введите: {0}', 'To confirm, type: {0}'],
  'app.moreMenu': ['Ещё', 'More'],
  'app.zone': ['Время: {0}', 'Time: {0}'],
  'app.webhooks': ['{0} вебхук|{0} вебхука|{0} вебхуков', '{0} webhook|{0} webhooks'],
  'app.deliveries': ['не доставлена {0}|не доставлено {0}|не доставлено {0}', '{0} not delivered|{0} not delivered'],
  'app.alerts': ['{0} открытое оповещение|{0} открытых оповещения|{0} открытых оповещений', '{0} open alert|{0} open alerts'],
  'action.copy': ['Скопировать', 'Copy'],
  'scheme.auto': ['Тема: как в системе', 'Theme: system'],
  'scheme.light': ['Тема: светлая', 'Theme: light'],
  'scheme.dark': ['Тема: тёмная', 'Theme: dark'],
  'live.on': ['обновляется', 'live'],
  'live.off': ['нет связи, восстанавливаем', 'connection lost, retrying'],
  'live.idle': ['не обновляется', 'not live'],
  'list.new': ['{0} новая запись|{0} новые записи|{0} новых записей', '{0} new|{0} new'],
  'list.nothingYet': ['Среди самых новых — ничего; более ранние ещё не просмотрены.', 'Nothing among the newest; earlier ones have not been looked at yet.'],
  'login.again': ['Сеанс завершён', 'Your session has ended'],
  'login.againNote': ['Войдите снова. Всё, что вы ввели на странице, сохранится.', 'Sign in again. What you typed on the page stays.'],
  'search.label': ['Поиск', 'Search'],
  'error.busy': ['Сервис пока не отвечает. Попробуйте ещё раз', 'The service cannot answer right now. Try again'],
  'error.request': ['Номер запроса', 'Request id'],
})
