// The description of the API.
import { add } from '../texts.js'

add({
  'docs.token': ['Токен API', 'API token'],
  'docs.tokenHint': ['Остаётся в памяти страницы. Без него вызовы делает ваш сеанс в панели.', 'It stays in the page’s memory. Without it, calls are made with your session of the panel.'],
  'docs.panel': ['Панель', 'The panel'],
  'docs.find': ['Найти вызов', 'Find an operation'],
  'docs.body': ['Тело запроса', 'Request body'],
  'docs.example': ['Пример', 'Example'],
  'docs.send': ['Отправить', 'Send'],
  'docs.stop': ['Остановить', 'Stop'],
  'docs.answers': ['Ответы', 'Answers'],
  'docs.required': ['обязательно', 'required'],
})
